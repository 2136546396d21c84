"""Verification for recipients: of networks in memory; files and folders are in tests/cli/test_result_commands.py."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import inq_ray
from inq_ray.export.errors import VerificationError
from tests.export.onnx.networks import codes_of
from tests.export.results import quantized, same_bits


def test_a_network_of_powers_of_two() -> None:
    network, states = quantized(4)
    rows = inq_ray.verify(nn.DataParallel(network))
    assert [row.name for row in rows] == list(states)
    for row in rows:
        assert row.bits is not None
        assert row.bits <= 4
        assert row.num_zero == int((states[row.name].codes == 0).sum())


def test_a_layer_that_is_compiled_changes_no_names() -> None:
    network, states = quantized(4)
    network[3] = torch.compile(network[3])  # compiled at its first call, of which there is none
    assert [row.name for row in inq_ray.verify(network)] == list(states)


def _fused(network: nn.Sequential) -> nn.Module:
    network.eval()
    nn.init.uniform_(network.get_submodule("1").running_var, 0.5, 2.0)  # type: ignore[arg-type]
    conv, norm = network[0], network[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return nn.Sequential(fuse_conv_bn_eval(conv, norm), *network[2:])


def _averaged(network: nn.Sequential) -> nn.Module:
    averaged = torch.optim.swa_utils.AveragedModel(network)
    averaged.update_parameters(network)
    with torch.no_grad():
        network.get_parameter("0.weight")[0] *= 2  # also powers of two
    assert inq_ray.verify(network)
    averaged.update_parameters(network)
    module: nn.Module = averaged.module
    return module


def _merged(network: nn.Sequential) -> nn.Module:
    weight = network.get_parameter("3.weight")
    down, up = torch.randn(2, weight.shape[1]), torch.randn(weight.shape[0], 2)
    with torch.no_grad():
        weight += 0.01 * up @ down
    return network


def _nudged(network: nn.Sequential) -> nn.Module:
    with torch.no_grad():
        network.get_parameter("3.weight")[0, 0] += 2.0**-20
    return network


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_fused, r"'0\.weight'.*neither 0 nor a power of two; 1 of 3 tensors are not quantized"),
        (_averaged, r"'0\.weight'.* of 216 weights are neither 0 nor a power of two; 1 of 3 tensors"),
        (_merged, r"'3\.weight'.*1280 of 1280 weights are neither 0 nor a power of two; 1 of 3 tensors"),
        (_nudged, r"'3\.weight'.*1 of 1280 weights are neither 0 nor a power of two; 1 of 3 tensors"),
    ],
    ids=["fused BatchNorm", "averaged weights", "merged LoRA", "one weight"],
)
def test_what_changes_weights_is_found(change: Callable[[nn.Sequential], nn.Module], reason: str) -> None:
    network, _ = quantized(4)
    assert inq_ray.verify(network)
    with pytest.raises(VerificationError, match=reason):
        inq_ray.verify(change(network))


@pytest.mark.system
@pytest.mark.parametrize("arch", ["repvgg_a0", "mobileone_s0"])
def test_reparameterized_branches_are_found(arch: str) -> None:
    timm = pytest.importorskip("timm")
    from timm.utils.model import reparameterize_model

    network = timm.create_model(arch, num_classes=10).eval()
    codes_of(network, 4)
    assert inq_ray.verify(network)
    merged = reparameterize_model(network)
    images = torch.randn(1, 3, 64, 64)
    assert torch.allclose(network(images), merged(images), rtol=1e-3, atol=1e-3)
    with pytest.raises(VerificationError, match="weights are neither 0 nor a power of two"):
        inq_ray.verify(merged)


@pytest.mark.system
def test_an_exported_program_has_the_weights_of_the_packed_file(tmp_path: Path) -> None:
    network, states = quantized(3)
    network.eval()
    inq_ray.save(tmp_path / "net", network, type("Scheduler", (), {"state": states})())
    fresh = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 10), nn.Linear(10, 4))
    inq_ray.load(tmp_path / "net", fresh.eval())
    images = torch.randn(2, 3, 6, 6)
    program = torch.export.export(fresh, (images,))
    for name, tensor in network.state_dict().items():
        assert same_bits(program.state_dict[name], tensor)
    torch.export.save(program, tmp_path / "net.pt2")
    module = torch.export.load(tmp_path / "net.pt2").module()
    for name in states:
        assert same_bits(module.get_parameter(name).detach(), network.get_parameter(name).detach())
    with torch.no_grad():
        assert torch.equal(module(images), network(images))


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
