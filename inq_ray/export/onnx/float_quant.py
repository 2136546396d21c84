"""A node of QONNX that describes the levels of a weight, and leaves the weight unchanged.

FloatQuant of qonnx describes small floating-point numbers. With no mantissa bits, num_bits - 1 exponent bits and a bias
of 0 these are 0 and powers of two from 2^1; a scale of 2^(n_2 - 1) makes them the levels of a codebook.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from inq_ray.core.channels import AnyCodebook
from inq_ray.core.codebook import Codebook

LAYOUT = "qonnx"
DOMAIN = "qonnx.custom_op.general"


def float_quant(name: str, codebook: AnyCodebook, num_dims: int) -> tuple[NodeProto, list[TensorProto]]:
    """Return the node that leaves a weight unchanged, and its constants.

    Args:
        name: Name of the weight; the node reads NAME.float.
        codebook: Levels of the weight.
        num_dims: Dimensions of the weight.
    """
    n_2 = [codebook.n_2] if isinstance(codebook, Codebook) else list(codebook.n_2)
    scale = np.ldexp(np.float32(1.0), [0 if each is None else each - 1 for each in n_2]).astype(np.float32)
    num_exponents = codebook.num_exponents if isinstance(codebook, Codebook) else codebook.channels[0].num_exponents
    values: dict[str, NDArray[Any] | float] = {
        "scale": scale.reshape(-1, *[1] * (num_dims - 1)) if len(scale) > 1 else scale.reshape(()),
        "exponent_bits": codebook.num_bits - 1.0,
        "mantissa_bits": 0.0,
        "exponent_bias": 0.0,
        "max_value": 2.0**num_exponents,
    }
    constants = [
        numpy_helper.from_array(np.asarray(value, np.float32), f"{name}.{key}") for key, value in values.items()
    ]
    node = helper.make_node(
        "FloatQuant",
        [f"{name}.float", *(each.name for each in constants)],
        [name],
        name=f"quantize_{name}",
        domain=DOMAIN,
        has_inf=0,
        has_nan=0,
        has_subnormal=0,
        saturation=1,
        rounding_mode="ROUND",
    )
    return node, constants
