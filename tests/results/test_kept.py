import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from benchmarks.results.__main__ import main
from benchmarks.results.kept import digest, packed, restore
from inq_ray.export.formats import write_result
from inq_ray.export.result import Result
from tests.export.results import quantized, same_bits


@pytest.mark.parametrize("num_bits", [2, 3, 8])
def test_what_is_restored_has_the_bits_of_what_was_kept(num_bits: int, tmp_path: Path) -> None:
    network, states = quantized(num_bits)
    write_result(tmp_path, Result(network.state_dict(), states))
    (tmp_path / "kept.safetensors").write_bytes(packed(tmp_path))
    restored, state = restore(tmp_path / "kept.safetensors"), network.state_dict()
    assert restored.keys() == state.keys()
    assert all(same_bits(restored[name], state[name]) for name in state)


def test_weights_of_the_run_of_a_record_are_kept_and_no_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, states = quantized()
    run, record = tmp_path / "one", tmp_path / "docs/results/runs/one.json"
    write_result(run, Result(network.state_dict(), states))
    assert main(["keep", str(run)], tmp_path) == 2
    assert "collect the run first" in capsys.readouterr().err
    model = load_file(run / "model.safetensors")
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"name": "one", "verification": {"digest": digest(model)}}))
    assert main(["keep", str(run)], tmp_path) == 0
    kept = tmp_path / "docs/results/weights/one.safetensors"
    assert digest(restore(kept)) == digest(model)
    kept.unlink()
    model["0.bias"] += 1
    save_file(model, run / "model.safetensors")
    assert main(["keep", str(run)], tmp_path) == 2
    assert "are not those of its record" in capsys.readouterr().err
    assert not kept.exists()
