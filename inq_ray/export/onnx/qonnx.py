"""A network as QONNX: its quantized weights pass through FloatQuant nodes, which do not change them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx import ModelProto, NodeProto, helper
from torch import Tensor, nn

from inq_ray.export.onnx.float_quant import DOMAIN, LAYOUT, float_quant
from inq_ray.export.onnx.metadata import sealed
from inq_ray.export.onnx.model import check_named, float_model, write_model
from inq_ray.export.packed.reader import PackedTensor

# The newest opset that qonnx runs without conversion.
_OPSET = 18


def export_qonnx(
    model: nn.Module,
    images: Tensor,
    path: str | Path,
    *,
    quantized: Mapping[str, PackedTensor],
    facts: Mapping[str, Any],
    digest: str,
) -> None:
    """Write a network as QONNX, atomically: input "images" [1, C, H, W], output "logits" [1, classes].

    qonnx needs every shape, so the batch is of one image.

    Args:
        model: The network with its weights.
        images: Example input, float32 [N, C, H, W].
        path: The file.
        quantized: Codes and codebooks by parameter name.
        facts: Facts for recipients, as JSON values; see docs/format.md.
        digest: Digest of the packed file's tensors.

    Raises:
        ValueError: torch cannot export the network, a weight is not found in the graph, or the file cannot be written.
    """
    proto = with_float_quant(float_model(model, images[:1], _OPSET, is_batch_free=False), quantized)
    write_model(sealed(proto, quantized, LAYOUT, facts, digest), path)


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
            node, constants = float_quant(name, quantized[name].codebook, quantized[name].codes.dim())
            nodes.append(node)
            graph.initializer.extend(constants)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return proto
