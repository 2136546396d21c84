"""From codes back to the weights that the network holds."""

import pytest
import torch

from inq_ray.core.codebook import Codebook
from inq_ray.core.state import TensorState
from inq_ray.export.float_state import float_state
from tests.export.results import quantized, same_bits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("num_bits", [2, 3, 4, 5, 8])
def test_codes_give_the_weights_bit_for_bit(num_bits: int, dtype: torch.dtype) -> None:
    network, states = quantized(num_bits, dtype)
    weights = float_state(states, dtype)
    assert weights.keys() == states.keys()
    for name, weight in weights.items():
        assert same_bits(weight, network.get_parameter(name).detach())


def test_a_live_weight_is_an_error_that_names_the_tensor() -> None:
    _, states = quantized()
    states["3.weight"].frozen[0, :3] = False
    with pytest.raises(ValueError, match=r"3 of 1280 weights of '3\.weight' are still live"):
        float_state(states)


def test_a_dtype_that_cannot_hold_a_weight_is_an_error() -> None:
    codebook = Codebook(5, -30)
    codes = codebook.encode(torch.tensor([2.0**-30]))
    states = {"w": TensorState(codebook, torch.tensor([True]), codes)}
    assert float(float_state(states)["w"]) == 2.0**-30
    with pytest.raises(ValueError, match=r"torch\.float16 cannot represent .* a weight of 'w'"):
        float_state(states, torch.float16)
    with pytest.raises(ValueError, match="floating dtype"):
        float_state(states, torch.int32)
