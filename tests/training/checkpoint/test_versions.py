"""A checkpoint that an earlier version wrote loads for ever, with its bits, and a run goes on from it.

`kept/` holds one of each format version, and one of each time that facts were added to a format. None of them is ever
changed or removed. This file, run as a module, adds the one of the present version, and prints the line for KEPT:

    python -m tests.training.checkpoint.test_versions version-2

It stops a run of a tiny network in the middle of a stage: half of its weights frozen as codes, with momentum, averages
and metrics. `version-1` alone was made by hand, of a network in networks.py, before runs had checkpoints.
"""

import contextlib
import hashlib
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from inq_ray.export.model_file import read_model
from inq_ray.storage.address import locate
from inq_ray.training.checkpoint.files import FORMAT_VERSION, open_checkpoint
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.restore import restore
from inq_ray.training.checkpoint.resume import Resume
from inq_ray.training.checkpoint.snapshot import AVERAGE, CODES, FROZEN, MODEL, MOMENTUM, Snapshot
from inq_ray.training.loop.ema import Ema
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.start import look, prepare
from tests.training.checkpoint.networks import (
    make_network,
    make_parts,
    snapshot_bits,
    snapshot_of,
    stop_gradients,
)
from tests.training.runs import StoppedError, needs_digits, run_here, stopped_after, tiny_config

FOLDER = Path(__file__).parent / "kept"
POSITION = TrainingPosition(stage=2, epoch=0, step=2)
# sha256 over names, dtypes, shapes and bits of all tensors.
BY_HAND = {"version-1": "248a9bed656d07ab7e7bfadad2607a86b4f5adfd232d1174ffd5ef67b055dee7"}
KEPT = {
    "version-1-of-a-run": "3cf4780fc99f2aebbc69efa24ae342eb1d7fa17c081a5d30c357e6c01440ea3b",
}


def digest(snapshot: Snapshot) -> str:
    return hashlib.sha256(repr(sorted(snapshot_bits(snapshot).items())).encode()).hexdigest()


def read(name: str) -> Snapshot:
    entry, snapshot = open_checkpoint(locate(str(FOLDER / name / POSITION.name)))
    assert entry.position == snapshot.position == POSITION
    assert not entry.is_stage_end
    return snapshot


def test_there_is_one_of_this_version() -> None:
    assert f"version-{FORMAT_VERSION}" in BY_HAND | KEPT
    assert {path.name for path in FOLDER.iterdir()} == set(BY_HAND | KEPT)
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 100_000


@pytest.mark.parametrize("name", BY_HAND)
def test_one_that_was_made_by_hand_loads(name: str) -> None:
    snapshot = read(name)
    assert digest(snapshot) == BY_HAND[name]
    assert snapshot.facts.config.network.arch == "digits_cnn"
    assert [row.epoch for row in snapshot.facts.rows] == [1, 2]
    parts = make_parts(make_network(seed=8), ema_decay=None)
    restore(snapshot, parts)
    stop_gradients(parts)
    parts = replace(parts, ema=Ema(parts.model, 0.9))
    restore(snapshot, parts)
    assert digest(snapshot_of(parts, POSITION)) == BY_HAND[name]


@pytest.mark.parametrize("name", KEPT)
def test_one_that_a_run_has_left_loads(name: str) -> None:
    snapshot = read(name)
    assert digest(snapshot) == KEPT[name]
    for kind in (MODEL, FROZEN, CODES, MOMENTUM, AVERAGE):
        assert any(tensor.startswith(kind) for tensor in snapshot.tensors), kind
    history = snapshot.facts
    assert [(row.stage, row.epoch) for row in history.rows] == [(0, 1), (1, 0), (1, 1), (2, 0)]
    assert history.epochs_done == 2


@needs_digits
@pytest.mark.system
@pytest.mark.parametrize("name", KEPT)
def test_a_run_goes_on_from_it(name: str, tmp_path: Path) -> None:
    """To its end, with every weight that was frozen there as it was."""
    snapshot = read(name)
    path = FOLDER / name / POSITION.name
    config = snapshot.facts.config.replace(
        output={"storage_path": str(tmp_path), "name": "on", "resume": str(path), "checkpoint_path": None}
    )
    decision = look(config, fingerprint=snapshot.facts.fingerprint)
    assert isinstance(decision, Resume)
    prepare(config, decision)
    finished = run_here(config)
    model = read_model(finished.folder.result / "model.safetensors")
    for tensor, saved in snapshot.tensors.items():
        if tensor.startswith(FROZEN):
            weight = tensor.removeprefix(FROZEN)
            assert 0 < int(saved.sum()) < saved.numel()
            assert torch.equal(model[weight][saved], snapshot.tensors[MODEL + weight][saved])


def make(name: str) -> str:
    """Leaves a run's checkpoint in `kept/`, and returns its digest."""
    assert not (FOLDER / name).exists(), "what is kept is never changed"
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        config = tiny_config(
            Path("runs"),
            "kept",
            network={"arch": "tests.training.checkpoint.kept_network:tiny"},
            quantization={"iterative_steps": (0.3, 0.6, 1.0)},
            training={"float_epochs": 1, "epochs": 1, "ema_decay": 0.9, "momentum": 0.8, "batch_size": 200},
        ).replace(output={"checkpoint_every": "1"})
        try:
            with stopped_after((POSITION.stage, POSITION.epoch + 1, POSITION.step)):
                run_here(config)
        except StoppedError:
            shutil.copytree(
                RunFolder.planned(config).path / "checkpoints" / POSITION.name, FOLDER / name / POSITION.name
            )
    return digest(read(name))


if __name__ == "__main__":
    print(f'    "{sys.argv[1]}": "{make(sys.argv[1])}",')
