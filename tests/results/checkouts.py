"""Checkouts with little more in them than results of small runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from benchmarks.results.__main__ import main
from benchmarks.results.kept import restore
from benchmarks.results.places import Places
from benchmarks.results.record import Record
from inq_ray.data.loader import eval_requests
from inq_ray.training.config import RunConfig
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.evaluation.evaluate import evaluate
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.task.build import build_task
from tests.training.runs import Finished, run_here, tiny_config

COMMIT = "0123abc"
# What tiny_config says, as a command.
COMMAND = (
    "python jobs/quantize_imagenet.py --float-epochs 1 --epochs 1 --iterative-steps 0.5 1 --num-workers 1 "
    "--seed {seed} --name {name}"
)


def small_run(storage: Path, name: str, *, seed: int = 0, **sections: dict[str, Any]) -> Finished:
    """A run on digits."""
    training = {"seed": seed, **sections.pop("training", {})}
    return run_here(tiny_config(storage, name, training=training, **sections))


def empty_checkout(root: Path) -> Places:
    """A README with the two marks, and no results."""
    root.mkdir(exist_ok=True)
    (root / "README.md").write_text("# Title\n\n<!-- results:begin -->\n\n<!-- results:end -->\n\nThe rest.\n")
    return Places(root)


def collect(places: Places, folder: Path, *arguments: str, command: str = COMMAND) -> int:
    """As the command line does."""
    return main(["collect", str(folder), "--commit", COMMIT, "--command", command, *arguments], places)


def copy_of(finished: Finished, to: Path) -> Path:
    """A copy of a run's folder, which may be damaged."""
    shutil.copytree(finished.folder.path, to / finished.folder.path.name)
    return to / finished.folder.path.name


def accuracy_of_kept(path: Path, record: Record, data: str) -> Accuracy:
    """Evaluates kept weights on the test set that their record speaks of, on the CPU."""
    config = RunConfig.from_json(json.dumps(record["config"]))
    config = config.replace(
        data={"data": data}, network={"weights": None}, training={"teacher": None, "distill": False}
    )
    task = build_task(config, torch.device("cpu"), evaluate=True)
    task.model.load_state_dict(restore(path))
    requests = eval_requests(task.validation_indices, rank=0, world_size=1)
    return evaluate(task.model, task.loader.batches(requests), task.to_input, BadImages(0))
