import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.results.__main__ import main
from inq_ray.core.digest import digest_tensors, summary
from inq_ray.export.formats import write_result
from inq_ray.export.packed.reader import read
from inq_ray.export.result import Result
from tests.export.results import quantized


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
    record.write_text(json.dumps({"name": "one", "verification": {"digest": summary(digest_tensors(model))}}))
    assert main(["keep", str(run)], tmp_path) == 0
    kept = tmp_path / "docs/results/weights/one.inq.safetensors"
    assert read(kept).digest == summary(digest_tensors(model))
    kept.unlink()
    with torch.no_grad():
        network.get_parameter("0.bias").add_(1)
    write_result(run, Result(network.state_dict(), states))
    assert main(["keep", str(run)], tmp_path) == 2
    assert "are not those of its record" in capsys.readouterr().err
    assert not kept.exists()
