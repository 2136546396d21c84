"""Statistics of a result."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from inq_ray.cli import program
from inq_ray.export.packed.reader import read
from inq_ray.export.packed.writer import save
from inq_ray.export.table import row_of, rows_of, sizes_of
from tests.export.results import quantized


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_sizes_are_those_of_the_tensors_own_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    network, states = quantized(4, dtype)
    save(tmp_path / "net", network, states)
    packed = read(tmp_path / "net")
    sizes = sizes_of(packed, rows_of(packed))
    weights = sum(state.codes.numel() for state in states.values())
    rest = sum(tensor.nbytes for name, tensor in network.state_dict().items() if name not in states)
    assert sizes.as_float == rest + weights * dtype.itemsize
    assert sizes.as_int8 == rest + weights
    assert rest < sizes.limit < rest + weights / 2


def test_tied_tensors_count_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, states = quantized(4)
    save(tmp_path / "one", network, states)
    tied = nn.Sequential(network, network[3])
    save(tmp_path / "tied", tied, {f"0.{name}": state for name, state in states.items()})
    one, other = (read(tmp_path / name) for name in ("one", "tied"))
    assert len(other.state) == len(one.state) + 2
    assert sizes_of(other, rows_of(other)) == sizes_of(one, rows_of(one))
    shares = []
    for name in ("one", "tied"):
        assert program.run(["verify", str(tmp_path / name)]) == 0
        shares += [line for line in capsys.readouterr().out.splitlines() if " share " in line]
    assert shares[0] == shares[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_row_is_the_same_in_any_dtype_that_holds_the_weights(dtype: torch.dtype) -> None:
    """Both zeros are one level, and numbers below the smallest normal one are levels of their own."""
    info = torch.finfo(dtype)
    smallest, top = math.frexp(info.smallest_normal)[1] - 1, math.frexp(info.max)[1] - 1
    lowest = smallest + math.frexp(info.eps)[1] - 1  # of the subnormal numbers
    generator = torch.Generator().manual_seed(0)
    exponents = torch.tensor([lowest, lowest + 1, smallest, -3, 0, top])
    drawn = torch.randint(len(exponents), (6, 50), generator=generator)
    signs = torch.randint(-1, 2, drawn.shape, generator=generator)
    weight = torch.ldexp(signs.double(), exponents[drawn]).to(dtype)
    weight[0, :4] = torch.tensor([0.0, -0.0, 0.0, -0.0])
    row = row_of("weight", weight.t(), 5, "full", 9)
    assert row == row_of("weight", weight.t().double(), 5, "full", 9)
    assert (row.num_levels, row.exponents) == (13, (lowest, top))
    assert row.num_zero == int((weight == 0).sum())
