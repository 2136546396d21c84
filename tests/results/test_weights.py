"""The weights that the results page offers have, on the test set, the accuracy that it claims: to the last image."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.results.record import read_records
from inq_ray.data.loader import eval_requests
from inq_ray.export.packed.reader import SUFFIX, read
from inq_ray.training.config import RunConfig
from inq_ray.training.evaluation.evaluate import evaluate
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.task.build import build_task
from tests.conftest import REPO

pytestmark = pytest.mark.system

_KEPT = sorted((REPO / "docs/results/weights").iterdir())


def _name(path: Path) -> str:
    return path.name.removesuffix(SUFFIX)


_RECORDS = {record["name"]: record for record in read_records(REPO / "docs/results/runs")}


@pytest.mark.parametrize("path", _KEPT, ids=_name)
def test_kept_weights_are_those_of_their_run(path: Path) -> None:
    assert read(path).digest == _RECORDS[_name(path)]["verification"]["digest"]


@pytest.mark.long
@pytest.mark.parametrize("path", _KEPT, ids=_name)
def test_kept_weights_have_the_accuracy_that_is_claimed(path: Path, shared_data: Path) -> None:
    record, state = _RECORDS[_name(path)], read(path).state
    config = RunConfig.from_json(json.dumps(record["config"])).replace(
        data={"data": str(shared_data / record["data"])}, network={"weights": None}, training={"distill": False}
    )
    task = build_task(config, torch.device("cpu"), evaluate=True)
    task.model.load_state_dict(state)
    batches = task.loader.batches(eval_requests(task.validation_indices, rank=0, world_size=1))
    accuracy = evaluate(task.model, batches, task.to_input, BadImages(0))
    assert (accuracy.num_top1, accuracy.num_samples) == (record["num_correct"], record["num_images"])
