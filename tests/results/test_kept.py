from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.results.__main__ import main
from benchmarks.results.kept import digest, packed, restore
from benchmarks.results.record import read_records
from inq_ray.export.formats import write_result
from inq_ray.training.run_folder import RunFolder
from tests.export.results import quantized, same_bits
from tests.results.checkouts import accuracy_of_kept, collect, copy_of, empty_checkout
from tests.training.runs import Finished, needs_digits

pytestmark = pytest.mark.system


@pytest.mark.parametrize("num_bits", [2, 3, 4, 5, 8])
def test_what_is_restored_has_the_bits_of_what_was_kept(num_bits: int, tmp_path: Path) -> None:
    network, states = quantized(num_bits)
    write_result(tmp_path, network.state_dict(), states)
    contents = packed(tmp_path)
    assert packed(tmp_path) == contents
    (tmp_path / "kept.safetensors").write_bytes(contents)
    restored, state = restore(tmp_path / "kept.safetensors"), network.state_dict()
    assert restored.keys() == state.keys()
    assert all(same_bits(restored[name], state[name]) for name in state)
    assert digest(restored) == digest(dict(state))
    quantized(num_bits)[0].load_state_dict(restored)
    num_codes = sum(each.codes.numel() for each in states.values())
    assert len(contents) < num_codes * num_bits / 8 + 2500  # the rest is metadata and what stays float


def _kept(tmp_path: Path) -> Path:
    network, states = quantized(5)
    write_result(tmp_path, network.state_dict(), states)
    path = tmp_path / "kept.safetensors"
    path.write_bytes(packed(tmp_path))
    return path


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = _kept(tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="not a whole file of kept weights"):
        restore(path)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a whole file of kept weights"):
        restore(tmp_path / "other.safetensors")


def test_a_network_that_is_too_large_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(80_000)}, tmp_path / "model.safetensors")
    save_file({}, tmp_path / "codes.safetensors", {"inq_ray": '{"format_version": 1, "tensors": {}}'})
    with pytest.raises(ValueError, match="are too many to be kept, at most 300,000 are"):
        packed(tmp_path)


@needs_digits
def test_kept_weights_have_the_accuracy_of_the_record(small_runs: dict[str, Finished], tmp_path: Path) -> None:
    places, folder = empty_checkout(tmp_path / "checkout"), small_runs["five-0"].folder
    collect(places, folder.path)
    assert main(["keep", str(folder.path)], places) == 0
    (record,) = read_records(places.runs)
    accuracy = accuracy_of_kept(places.weights / "five-0.safetensors", record, "digits")
    assert (accuracy.num_top1, accuracy.num_samples) == (record["num_correct"], record["num_images"])


@needs_digits
def test_only_the_weights_of_a_record_are_kept(
    small_runs: dict[str, Finished], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = empty_checkout(tmp_path / "checkout")
    folder = RunFolder(copy_of(small_runs["five-0"], tmp_path))
    assert main(["keep", str(folder.path)], places) == 2
    assert "collect the run first" in capsys.readouterr().err
    collect(places, folder.path)
    model = load_file(folder.path / "model.safetensors")
    name = next(name for name in model if name.endswith("bias"))
    model[name] += 1
    save_file(model, folder.path / "model.safetensors")
    assert main(["keep", str(folder.path)], places) == 2
    assert "are not those of its record" in capsys.readouterr().err
    assert list(places.weights.iterdir()) == []
