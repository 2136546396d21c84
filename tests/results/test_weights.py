"""The weights that the results page offers have, on the test set, the accuracy that it claims: to the last image."""

from pathlib import Path

import pytest

from benchmarks.results.kept import MOST_BYTES, digest, restore
from benchmarks.results.places import Places
from benchmarks.results.record import read_records
from tests.conftest import REPO
from tests.results.checkouts import accuracy_of_kept

pytestmark = pytest.mark.system

_PLACES = Places(REPO)
_RECORDS = {record["name"]: record for record in read_records(_PLACES.runs)}
_KEPT = sorted(_PLACES.weights.glob("*.safetensors"))


@pytest.mark.parametrize("path", _KEPT, ids=lambda path: path.stem)
def test_kept_weights_are_those_of_their_run(path: Path) -> None:
    assert path.stat().st_size <= MOST_BYTES
    assert digest(restore(path)) == _RECORDS[path.stem]["verification"]["digest"]


@pytest.mark.long
@pytest.mark.parametrize("path", _KEPT, ids=lambda path: path.stem)
def test_kept_weights_have_the_accuracy_that_is_claimed(path: Path, shared_data: Path) -> None:
    record = _RECORDS[path.stem]
    accuracy = accuracy_of_kept(path, record, str(shared_data / record["data"]))
    assert (accuracy.num_top1, accuracy.num_samples) == (record["num_correct"], record["num_images"])
