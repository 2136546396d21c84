"""A network as QONNX: its quantized weights pass through FloatQuant nodes, which do not change them.

FloatQuant of qonnx describes small floating-point numbers. With no mantissa bits, num_bits - 1 exponent bits and a bias
of 0 these are 0 and powers of two from 2^1; a scale of 2^(n_2 - 1) makes them the levels of a codebook.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from inq_ray.core.codebook import Codebook
from inq_ray.export.onnx.model import check_named, float_model, write_model
from inq_ray.export.packed.reader import PackedTensor

_DOMAIN = "qonnx.custom_op.general"
# The newest opset that qonnx runs without conversion.
_OPSET = 18


def export_qonnx(model: nn.Module, images: Tensor, path: str | Path, *, quantized: Mapping[str, PackedTensor]) -> None:
    """Write a network as QONNX, atomically: input "images" [1, C, H, W], output "logits" [1, classes].

    qonnx needs every shape, so the batch is of one image.

    Args:
        model: The network with its weights.
        images: Example input, float32 [N, C, H, W].
        path: The file.
        quantized: Codes and codebooks by parameter name.

    Raises:
        ValueError: torch cannot export the network, a weight is not found in the graph, or the file cannot be written.
    """
    write_model(with_float_quant(float_model(model, images[:1], _OPSET, is_batch_free=False), quantized), path)


def with_float_quant(proto: ModelProto, quantized: Mapping[str, PackedTensor]) -> ModelProto:
    """Return a model in which quantized weights pass through FloatQuant nodes.

    Raises:
        ValueError: A quantized weight is not an initializer of the model.
    """
    graph = proto.graph
    check_named(proto, quantized)
    nodes: list[NodeProto] = []
    for weight in graph.initializer:
        if weight.name in quantized:
            name, weight.name = weight.name, f"{weight.name}.float"
            node, constants = _float_quant(name, quantized[name])
            nodes.append(node)
            graph.initializer.extend(constants)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    proto.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return proto


def _float_quant(name: str, tensor: PackedTensor) -> tuple[NodeProto, list[TensorProto]]:
    codebook = tensor.codebook
    n_2 = [codebook.n_2] if isinstance(codebook, Codebook) else list(codebook.n_2)
    scale = np.ldexp(np.float32(1.0), [0 if each is None else each - 1 for each in n_2]).astype(np.float32)
    num_exponents = codebook.num_exponents if isinstance(codebook, Codebook) else codebook.channels[0].num_exponents
    values: dict[str, NDArray[Any] | float] = {
        "scale": scale.reshape(-1, *[1] * (tensor.codes.dim() - 1)) if len(scale) > 1 else scale.reshape(()),
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
        domain=_DOMAIN,
        has_inf=0,
        has_nan=0,
        has_subnormal=0,
        saturation=1,
        rounding_mode="ROUND",
    )
    return node, constants
