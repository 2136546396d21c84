"""What a good result says of itself, and that every single fault is found."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from inq_ray.core.digest import digest_tensors, summary
from inq_ray.export.codes_file import CODES_FILE
from inq_ray.export.errors import VerificationError
from inq_ray.export.formats import write_result
from inq_ray.export.model_file import MODEL_FILE
from inq_ray.export.result import Result
from inq_ray.export.verify import verify
from tests.export.results import quantized

NAMES = ("0.weight", "3.weight", "4.weight")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("num_bits", [2, 3, 4, 5])
def test_a_good_result_is_described_by_what_its_files_hold(tmp_path: Path, num_bits: int, dtype: torch.dtype) -> None:
    network, states = quantized(num_bits, dtype)
    write_result(tmp_path, Result(network.state_dict(), states))
    verification = verify(tmp_path, NAMES)
    weights = [network.get_parameter(name).detach() for name in NAMES]
    assert verification.num_tensors == 3
    assert verification.num_weights == sum(weight.numel() for weight in weights)
    assert verification.num_zero == sum(int((weight == 0).sum()) for weight in weights) > 40
    assert verification.model_sha256 == hashlib.sha256((tmp_path / MODEL_FILE).read_bytes()).hexdigest()
    assert verification.digest == summary(digest_tensors(network.state_dict()))


def off_the_levels(weight: Tensor) -> None:
    weight.view(torch.int32)[5] ^= 1


def above_the_top(weight: Tensor) -> None:
    weight[5] = 2.0**20


def below_the_bottom(weight: Tensor) -> None:
    weight[5] = 2.0**-40


def another_level(weight: Tensor) -> None:
    weight[weight.abs().argmax()] *= -1


def negative_zero(weight: Tensor) -> None:
    weight[(weight == 0).nonzero()[0]] = -0.0


def not_a_number(weight: Tensor) -> None:
    weight[5] = float("nan")


FAULTS: list[tuple[Callable[[Tensor], None], str]] = [
    (off_the_levels, "1 of 216 weights are neither 0 nor a power of two"),
    (above_the_top, "1 of 216 weights are neither 0 nor a power of two"),
    (below_the_bottom, "1 of 216 weights are neither 0 nor a power of two"),
    (another_level, "1 of 216 weights differ from their codes"),
    (negative_zero, "1 of 216 weights are neither 0 nor a power of two"),
    (not_a_number, "1 of 216 weights are neither 0 nor a power of two"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_one_wrong_weight_is_found(tmp_path: Path, fault: Callable[[Tensor], None], reason: str) -> None:
    network, states = quantized(num_bits=3)
    write_result(tmp_path, Result(network.state_dict(), states))
    model = load_file(tmp_path / MODEL_FILE)
    fault(model["0.weight"].view(-1))
    save_file(model, tmp_path / MODEL_FILE)
    with pytest.raises(VerificationError, match=reason) as caught:
        verify(tmp_path, NAMES)
    assert caught.value.tensor == "0.weight"


def test_another_set_of_tensors_is_found(tmp_path: Path) -> None:
    network, states = quantized()
    write_result(tmp_path, Result(network.state_dict(), states))
    with pytest.raises(VerificationError, match="must not be quantized") as caught:
        verify(tmp_path, NAMES[:2])
    assert caught.value.tensor == "4.weight"
    with pytest.raises(VerificationError, match="has no codes") as caught:
        verify(tmp_path, (*NAMES, "5.weight"))
    assert caught.value.tensor == "5.weight"
    model = load_file(tmp_path / MODEL_FILE)
    save_file({**model, "3.weight": model["3.weight"].T.contiguous()}, tmp_path / MODEL_FILE)
    with pytest.raises(VerificationError, match=r"has shape \[128, 10\], its codes \[10, 128\]"):
        verify(tmp_path, NAMES)
    del model["3.weight"]
    save_file(model, tmp_path / MODEL_FILE)
    with pytest.raises(VerificationError, match="is not in model"):
        verify(tmp_path, NAMES)


def test_a_broken_file_and_another_dtype_are_found(tmp_path: Path) -> None:
    network, states = quantized()
    write_result(tmp_path, Result(network.state_dict(), states))
    model = load_file(tmp_path / MODEL_FILE)
    save_file({**model, "0.weight": model["0.weight"].int()}, tmp_path / MODEL_FILE)
    with pytest.raises(VerificationError, match="floating dtype"):
        verify(tmp_path, NAMES)
    (tmp_path / CODES_FILE).write_bytes(b"")
    with pytest.raises(VerificationError, match="not a whole safetensors file") as caught:
        verify(tmp_path, NAMES)
    assert caught.value.tensor is None
    error = pickle.loads(pickle.dumps(VerificationError("w", "is odd")))  # noqa: S301, our own
    assert (error.tensor, error.reason, str(error)) == ("w", "is odd", "tensor 'w': is odd")
