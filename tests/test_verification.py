"""Verification for recipients: of networks in memory; files and folders are in tests/cli/test_result_commands.py."""

from pathlib import Path

import pytest
import torch
from torch import nn

import inq_ray
from inq_ray.export.errors import VerificationError
from tests.export.results import quantized


def test_a_network_of_powers_of_two() -> None:
    network, states = quantized(4)
    rows = inq_ray.verify(nn.DataParallel(network))
    assert [row.name for row in rows] == list(states)
    for row in rows:
        assert row.bits is not None
        assert row.bits <= 4
        assert row.num_zero == int((states[row.name].codes == 0).sum())


def test_what_changes_weights_is_found() -> None:
    network, _ = quantized(4)
    conv = network.get_submodule("0")
    network.eval()
    nn.init.uniform_(network.get_submodule("1").running_var, 0.5, 2.0)  # type: ignore[arg-type]
    fused = torch.ao.quantization.fuse_modules(network, ["0", "1"])
    with pytest.raises(VerificationError, match=r"'0\.weight'.*neither 0 nor a power of two; 1 of 3 tensors"):
        inq_ray.verify(fused)
    assert conv is not None

    network, _ = quantized(4)
    with torch.no_grad():
        network.get_parameter("3.weight")[0, 0] += 2.0**-20
    with pytest.raises(VerificationError, match=r"'3\.weight'.*1 of 1280 weights are neither 0 nor a power of two"):
        inq_ray.verify(network)


def test_exponents_that_are_too_many() -> None:
    layer = nn.Linear(200, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(2.0 ** torch.arange(-126, 74.0))
    with pytest.raises(VerificationError, match="need more than 8 bits"):
        inq_ray.verify(layer)
    with pytest.raises(VerificationError, match="has no convolution"):
        inq_ray.verify(nn.ReLU())


def test_the_summary_of_a_network() -> None:
    network, _ = quantized()
    text = str(inq_ray.summary(network, 3))
    assert text.splitlines()[0].split() == ["parameter", "module", "shape", "values", "bits"]
    assert "0.weight   Conv2d       8x3x3x3  216     3" in text
    assert "float (normalization)" in text
    assert inq_ray.summary(network, 3)[0].bits == 3


def test_other_paths(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="no such file"):
        inq_ray.verify(tmp_path / "none")
    with pytest.raises(VerificationError):
        inq_ray.verify(tmp_path)
