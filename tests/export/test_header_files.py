"""C headers and memory files: a C program that only shifts and adds agrees with torch."""

import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from inq_ray.core.channels import Per
from inq_ray.core.codebook import Levels
from inq_ray.core.stage import apply, decide
from inq_ray.core.state import TensorState
from inq_ray.data.source import open_source
from inq_ray.export.header_files import export_header
from inq_ray.export.packed.reader import PackedFile, read
from inq_ray.export.packed.writer import save
from inq_ray.models.digits_cnn import DigitsCNN
from tests.export.results import quantized

_PROGRAM = Path(__file__).with_name("digits.c")


def _packed(path: Path, network: nn.Module, states: dict[str, TensorState]) -> PackedFile:
    save(path, network, type("Scheduler", (), {"state": states})())
    return read(path)


def _codes_of(header: str, name: str) -> list[int]:
    body = re.search(rf"{name}\[\d+\] = {{(.*?)}};", header, flags=re.DOTALL)
    assert body is not None
    return [int(value) for value in body.group(1).replace("\n", " ").split(",") if value.strip()]


@pytest.mark.parametrize("levels", ["paper", "full"])
@pytest.mark.parametrize("per", ["tensor", "channel"])
@pytest.mark.parametrize("num_bits", [2, 3, 5])
def test_weights_follow_from_the_header_alone(num_bits: int, levels: Levels, per: Per, tmp_path: Path) -> None:
    network, states = quantized(num_bits, levels=levels, per=per)
    names = export_header(_packed(tmp_path / "net", network, states), tmp_path / "out" / "c")
    assert names == ["w0_weight.mem", "w3_weight.mem", "w4_weight.mem", "weights.h"]
    header = (tmp_path / "out" / "c" / "weights.h").read_text()
    for name, identifier in (("0.weight", "w0_weight"), ("3.weight", "w3_weight"), ("4.weight", "w4_weight")):
        codes, n_2 = _codes_of(header, f"{identifier}_codes"), _codes_of(header, f"{identifier}_n_2")
        lines = (tmp_path / "out" / "c" / f"{identifier}.mem").read_text().split()
        assert [int(line, 16) for line in lines] == codes
        sign = 1 << (num_bits - 1)
        weight = network.get_parameter(name)
        row = weight.numel() // len(n_2)
        found = [
            0.0 if not code else (-1.0 if code & sign else 1.0) * 2.0 ** (n_2[i // row] + (code & (sign - 1)) - 1)
            for i, code in enumerate(codes)
        ]
        assert found == weight.reshape(-1).tolist()


def test_what_cannot_be_written(tmp_path: Path) -> None:
    packed = _packed(tmp_path / "net", *quantized())
    with pytest.raises(ValueError, match="exists: use another folder"):
        export_header(packed, tmp_path)
    with pytest.raises(ValueError, match="cannot write"):
        export_header(packed, tmp_path / "net" / "out")


def _header_of(tensors: dict[str, torch.Tensor], folder: Path) -> str:
    """The header of a network with a quantized weight "0.weight" and these buffers."""
    network, states = quantized()
    for name, tensor in tensors.items():
        network.register_buffer(name, tensor)
    export_header(_packed(folder / "net", network, states), folder / "c")
    return (folder / "c" / "weights.h").read_text()


def test_numbers_that_are_not_finite_are_those_of_math_h(tmp_path: Path) -> None:
    header = _header_of({"top": torch.tensor([math.nan, math.inf, -math.inf, -0.0])}, tmp_path)
    assert "static const float top[4] = {\n    NAN, INFINITY, -INFINITY, -0x0.0p+0f,\n};" in header
    assert header.count("#include <math.h>") == 1


def test_tensors_of_float64_stay_exact(tmp_path: Path) -> None:
    header = _header_of({"tenth": torch.tensor([0.1], dtype=torch.float64)}, tmp_path)
    assert f"static const double tenth[1] = {{\n    {(0.1).hex()},\n}};" in header
    assert "math.h" not in header


@pytest.mark.parametrize("name", ["w0_weight", "w0_weight_codes", "w0_weight_n_2", "W0_WEIGHT_BITS"])
def test_names_that_are_the_same_in_c_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give the same C identifier"):
        _header_of({name: torch.ones(2)}, tmp_path)


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'turns' has complex numbers"):
        _header_of({"turns": torch.ones(2, dtype=torch.complex64)}, tmp_path)


@pytest.mark.system
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_a_program_of_shifts_agrees_with_torch(tmp_path: Path) -> None:
    """The demo's network, trained for a moment; each class that it says is torch's."""
    source = open_source("digits")
    torch.manual_seed(0)
    network = DigitsCNN()
    train, test = (source.split(name).fetch(torch.arange(500), None) for name in ("train", "test"))
    mean, std = source.info.mean[0], source.info.std[0]

    def normalized(images: torch.Tensor) -> torch.Tensor:
        return (images / 255 - mean) / std

    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(60):
        batch = slice(step % 5 * 100, step % 5 * 100 + 100)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(normalized(train.images[batch])), train.labels[batch]).backward()
        optimizer.step()
    states = {}
    for name, weight in network.named_parameters():
        if weight.dim() > 1:
            states[name] = TensorState.live(weight, 5)
            apply(
                weight, states[name], decide(weight, states[name], 1.0, name=name, strategy="pruning", seed=0, stage=0)
            )
    network.eval()
    with torch.inference_mode():
        expected = network(normalized(test.images)).argmax(dim=1)
    assert float((expected == test.labels).float().mean()) > 0.8

    export_header(_packed(tmp_path / "net", network, states), tmp_path / "c")
    program = tmp_path / "digits"
    compile_ = ["gcc", "-std=c11", "-Wall", "-Wno-unused-const-variable", "-Werror", "-O2", f"-I{tmp_path / 'c'}"]
    subprocess.run([*compile_, str(_PROGRAM), "-o", str(program), "-lm"], check=True, timeout=120)
    images = test.images.to(torch.uint8).numpy().tobytes()
    done = subprocess.run(
        [str(program), repr(mean), repr(std)], input=images, capture_output=True, check=True, timeout=60
    )
    assert [int(line) for line in done.stdout.split()] == expected.tolist()
