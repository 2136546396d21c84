"""A checkpoint that an earlier version wrote loads for ever, with its bits.

`kept/` holds one of each format version; this file, run as a module, writes the one of the present version:

    python -m tests.training.checkpoint.test_versions
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from inq_ray.data.address import locate
from inq_ray.training.checkpoint.compact import compact
from inq_ray.training.checkpoint.files import FORMAT_VERSION
from inq_ray.training.checkpoint.place import Place
from inq_ray.training.checkpoint.resume import config_of
from inq_ray.training.checkpoint.snapshot import Snapshot, history_of, restore
from inq_ray.training.checkpoint.store import CheckpointStore, read_checkpoint
from inq_ray.training.ema import Ema
from tests.training.checkpoint.networks import (
    make_network,
    make_parts,
    make_snapshot,
    snapshot_bits,
    snapshot_of,
    stop_gradients,
)

KEPT = Path(__file__).parent / "kept"
PLACE = Place(stage=2, epoch=0, step=2)
# By format version: sha256 over names, dtypes, shapes and bits of all tensors.
DIGESTS = {1: "248a9bed656d07ab7e7bfadad2607a86b4f5adfd232d1174ffd5ef67b055dee7"}


def digest(snapshot: Snapshot) -> str:
    return hashlib.sha256(repr(sorted(snapshot_bits(snapshot).items())).encode()).hexdigest()


def test_there_is_one_of_this_version() -> None:
    assert max(DIGESTS) == FORMAT_VERSION


@pytest.mark.parametrize("version", DIGESTS)
def test_a_checkpoint_of_that_version_loads(version: int) -> None:
    entry, snapshot = read_checkpoint(locate(str(KEPT / f"version-{version}" / PLACE.name)))
    assert (entry.place, entry.top1, entry.is_stage_end) == (PLACE, 51.5, False)
    assert digest(snapshot) == DIGESTS[version]
    assert config_of(snapshot).network.arch == "digits_cnn"
    assert [row.epoch for row in history_of(snapshot).rows] == [1, 2]
    parts = make_parts(make_network(seed=8), ema_decay=None)
    restore(snapshot, parts)
    stop_gradients(parts)
    parts = replace(parts, ema=Ema(parts.model, 0.9))
    restore(snapshot, parts)
    assert digest(snapshot_of(parts, PLACE)) == DIGESTS[version]


if __name__ == "__main__":
    made = make_snapshot(PLACE, stages=2)
    CheckpointStore(locate(str(KEPT / f"version-{FORMAT_VERSION}"))).save(compact(made), top1=51.5)
    print(digest(made))
