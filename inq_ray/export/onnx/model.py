"""A network with its codes as one ONNX file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto
from onnxscript.optimizer import fold_constants, remove_unused_nodes
from torch import Tensor, nn

from inq_ray.export.onnx.codes import CodeNodes, Layout
from inq_ray.export.onnx.metadata import sealed
from inq_ray.export.packed.reader import PackedTensor
from inq_ray.files.shown import one_line, quoted
from inq_ray.files.whole import whole

# The first opset with UINT2; ONNX Runtime runs it.
_OPSET = 25
_IR_VERSION = 12


def export_onnx(
    model: nn.Module,
    images: Tensor,
    path: str | Path,
    *,
    quantized: Mapping[str, PackedTensor],
    layout: Layout = "small",
    facts: Mapping[str, Any],
    digest: str,
) -> None:
    """Write a network as ONNX, atomically: input "images" [N, C, H, W], output "logits" [N, classes].

    BatchNorm is not folded into convolutions, because their weights would no longer be powers of two.

    Args:
        model: The network with its weights, in any mode; it is exported for inference.
        images: Example input, float32 [N, C, H, W]; N is dynamic in the file.
        path: The file.
        quantized: Codes and codebooks by parameter name.
        layout: See :class:`inq_ray.export.onnx.codes.CodeNodes`.
        facts: Facts for recipients, as JSON values; see docs/format.md.
        digest: Digest of the packed file's tensors.

    Raises:
        ValueError: torch cannot export the network, a weight is not found in the graph, or the file cannot be written.
    """
    proto = with_codes(float_model(model, images), quantized, layout)
    write_model(sealed(proto, quantized, layout, facts, digest), path)


def write_model(data: bytes, path: str | Path) -> None:
    """Check the bytes of an ONNX file, and write it atomically.

    Raises:
        ValueError: The file cannot be written.
    """
    onnx.checker.check_model(data)
    path = Path(path)
    try:
        with whole(path) as beside:
            beside.write_bytes(data)
    except OSError as error:
        raise ValueError(one_line(f"cannot write {path}: {error.strerror or error}")) from error


def float_model(model: nn.Module, images: Tensor, opset: int = _OPSET, *, is_batch_free: bool = True) -> ModelProto:
    """Return a network as ONNX in float32, with its parameters unfolded and under their names.

    Args:
        model: The network, in any mode.
        images: Example input, float32 [N, C, H, W]; N is dynamic.
        opset: Version of ONNX's operators.
        is_batch_free: Whether the file takes any N.

    Raises:
        ValueError: torch cannot export the network.
    """
    was_training = model.training
    try:
        program = torch.onnx.export(
            model.eval(),
            (images,),
            dynamo=True,
            opset_version=opset,
            optimize=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},) if is_batch_free else None,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(one_line(f"torch cannot export {type(model).__name__} as ONNX: {error}")) from error
    finally:
        model.train(was_training)
    assert program is not None
    # Nothing else of the optimizer, which folds BatchNorm into weights.
    fold_constants(program.model, should_fold=lambda node: None if _is_of_shapes(node) else False)
    remove_unused_nodes(program.model)
    proto: ModelProto = program.model_proto
    proto.ir_version = max(proto.ir_version, _IR_VERSION)
    for part in (proto.graph, *proto.graph.node, *proto.graph.initializer):  # Python source paths
        del part.metadata_props[:]
        part.doc_string = ""
    return proto


def _is_of_shapes(node: Any) -> bool:
    """Return whether a node (of onnx_ir) computes with no parameter of the network, but perhaps its shape."""
    return node.op_type == "Shape" or not any(each is not None and each.is_initializer() for each in node.inputs)


def with_codes(proto: ModelProto, quantized: Mapping[str, PackedTensor], layout: Layout) -> ModelProto:
    """Return a model with the codes of quantized weights in place of their float values.

    Raises:
        ValueError: A quantized weight is not an initializer of the model.
    """
    graph = proto.graph
    check_named(proto, quantized)
    nodes, initializers = [], [each for each in graph.initializer if each.name not in quantized]
    for name, tensor in quantized.items():
        made = CodeNodes(name, tensor.codebook, tensor.codes, layout)
        nodes += made.nodes
        initializers += made.initializers
    rest = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(initializers)
    graph.node.extend([*nodes, *rest])
    # Shapes of the other values stay: with them, ONNX Runtime fuses the same nodes as in the float model.
    shapes = [each for each in graph.value_info if each.name not in quantized]
    del graph.value_info[:]
    graph.value_info.extend(shapes)
    return proto


def check_named(proto: ModelProto, quantized: Mapping[str, PackedTensor]) -> None:
    """Check that every quantized weight is in the graph under its name.

    Raises:
        ValueError: A weight is missing.
    """
    missing = quantized.keys() - {each.name for each in proto.graph.initializer}
    if missing:
        raise ValueError(
            f"{quoted(min(missing))} is not in the exported graph under its name ({len(missing)} such): the network "
            "does not use its parameters directly"
        )
