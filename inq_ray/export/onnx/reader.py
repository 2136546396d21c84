"""Reader of exported ONNX files, which checks everything and runs nothing.

Codes, tables and nodes of each weight are compared with those that the exporter makes for the codebook in the metadata.
So it is known which weight the nodes compute, however large or strange the graph of a foreign file is.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto
from torch import Tensor

from inq_ray.core.channels import AnyCodebook
from inq_ray.export.level_check import check_codes, fault
from inq_ray.export.onnx.codes import LAYOUTS, CodeNodes, codes_from
from inq_ray.export.onnx.float_quant import LAYOUT, float_quant
from inq_ray.export.onnx.metadata import Described, check_digest, described_tensors, parsed
from inq_ray.export.packed.reader import PackedFile, PackedTensor, sha256
from inq_ray.files.shown import one_line, quoted

_FLOATS: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
}


def read(path: str | Path) -> PackedFile:
    """Read an exported ONNX or QONNX file, and check it.

    Returns:
        Its tensors: quantized ones by parameter name, and every float constant of the graph. The digest is the one in
        the metadata, of the packed file that was exported.

    Raises:
        ValueError: It is missing, damaged, not exported by inq_ray, or has changed; one line that names it.
    """
    path = Path(path)
    try:
        return unpack(path.read_bytes())
    except OSError as error:
        raise ValueError(one_line(f"{path}: {error.strerror or error}")) from error
    except ValueError as error:
        raise ValueError(one_line(f"{path}: {error}")) from error


def unpack(data: bytes) -> PackedFile:
    """Return the contents of an exported file.

    Raises:
        ValueError: It is damaged, not exported by inq_ray, or has changed.
    """
    proto, described = parsed(data)
    facts, layout = described.get("facts"), described.get("layout")
    if not isinstance(facts, dict) or layout not in (*LAYOUTS, LAYOUT):
        raise ValueError(f"metadata are damaged: its layout is {quoted(layout)}")
    digest = described.get("result_digest")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(f"metadata are damaged: its digest is {quoted(digest)}")
    graph = _Graph.of(proto)
    state: dict[str, Tensor] = {}
    quantized: dict[str, PackedTensor] = {}
    for name, line in described_tensors(described).items():
        try:
            state[name], quantized[name] = _weight(name, line, layout, graph)
        except ValueError as error:
            raise ValueError(f"{quoted(name)}: {error}") from None
    graph.check_use(quantized)
    check_digest(data)
    return PackedFile(state=state | graph.other_floats(), quantized=quantized, facts=facts, digest=digest)


def _weight(name: str, line: Described, layout: Any, graph: "_Graph") -> tuple[Tensor, PackedTensor]:
    """Return a quantized weight as the graph computes it, and its codes."""
    count = math.prod(line.shape)
    if layout == LAYOUT:
        weight = graph.floats(f"{name}.float", count).reshape(line.shape)
        codes = line.codebook.encode(weight)
        node, constants = float_quant(name, line.codebook, weight.dim())
        nodes, num_bytes = [node], 4 * count
        stored = {f"{name}.float", *(each.name for each in constants)}
    else:
        raw = graph.raw(f"{name}.codes")
        codes = codes_from(raw, line.codebook.num_bits, count, layout).reshape(line.shape)
        check_codes(name, line.codebook, codes)
        weight = _from_tables(name, line.codebook, codes, graph)
        made = CodeNodes(name, line.codebook, codes, layout)
        nodes, constants, num_bytes = made.nodes, made.initializers, len(raw)
        stored = {each.name for each in constants}
    if reason := fault(name, weight, line.codebook, codes):
        raise ValueError(reason)
    graph.check(nodes, constants)
    if sha256(codes) != line.sha256:
        raise ValueError("the SHA-256 of its codes is not that in the metadata")
    graph.used |= stored
    return weight, PackedTensor(codebook=line.codebook, codes=codes, num_bytes=num_bytes)


def _from_tables(name: str, codebook: AnyCodebook, codes: Tensor, graph: "_Graph") -> Tensor:
    """Return the weight by the tables of the file, which need not be right."""
    weight = graph.floats(f"{name}.levels", 1 << codebook.num_bits)[codes.int()]
    if f"{name}.powers" in graph.initializers:
        weight = weight * graph.floats(f"{name}.powers", len(codes)).reshape(-1, *[1] * (codes.dim() - 1))
    return weight


@dataclass
class _Graph:
    """The parts of a model, by name; `used` collects the initializers of quantized weights."""

    initializers: dict[str, TensorProto]
    nodes: dict[str, NodeProto]
    proto: ModelProto
    used: set[str]

    @classmethod
    def of(cls, proto: ModelProto) -> "_Graph":
        graph = proto.graph
        if proto.functions or proto.training_info or graph.sparse_initializer:
            raise ValueError("has functions, training or sparse tensors, which inq_ray does not export")
        if any(each.data_location == TensorProto.EXTERNAL for each in _tensors(graph)):
            raise ValueError("has tensors in other files, which inq_ray does not export")
        initializers = {each.name: each for each in graph.initializer}
        nodes = {node.output[0]: node for node in graph.node if node.output}
        if len(initializers) != len(graph.initializer) or len(nodes) != len(graph.node):
            raise ValueError("is damaged: two tensors or nodes have the same name")
        return cls(initializers, nodes, proto, set())

    def raw(self, name: str) -> bytes:
        """Return the data of an initializer."""
        if name not in self.initializers:
            raise ValueError(f"the graph has no {quoted(name)}: another program has changed it")
        data: bytes = self.initializers[name].raw_data
        return data

    def floats(self, name: str, count: int) -> Tensor:
        """Return an initializer of float32 [count]."""
        data = self.raw(name)
        if self.initializers[name].data_type != TensorProto.FLOAT or len(data) != 4 * count:
            raise ValueError(f"{quoted(name)} is not float32 of {count:,} values")
        return torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32))

    def check(self, nodes: Iterable[NodeProto], constants: Iterable[TensorProto]) -> None:
        """Check that the graph has exactly these parts."""
        for tensor in constants:
            if self.initializers.get(tensor.name) != tensor:
                raise ValueError(f"{quoted(tensor.name)} in the graph is not that of its codebook")
        for node in nodes:
            if self.nodes.get(node.output[0]) != node:
                raise ValueError(f"the graph computes {quoted(node.output[0])} in another way")

    def check_use(self, names: Iterable[str]) -> None:
        """Check that the graph uses these weights."""
        inputs = {each for node in self.proto.graph.node for each in node.input}
        for name in names:
            if name not in inputs:
                raise ValueError(f"{quoted(name)}: the graph does not use it")

    def other_floats(self) -> dict[str, Tensor]:
        """Return every float constant that belongs to no quantized weight."""
        rest = [each for each in _tensors(self.proto.graph) if each.name not in self.used]
        found: dict[str, Tensor] = {}
        for index, tensor in enumerate(rest):
            if (dtype := _FLOATS.get(tensor.data_type)) and len(tensor.raw_data) % dtype.itemsize == 0:
                data = torch.frombuffer(bytearray(tensor.raw_data), dtype=dtype) if tensor.raw_data else torch.empty(0)
                found[tensor.name or f"constant {index}"] = data
        return found


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield every tensor in a graph, also in attributes and inner graphs."""
    graphs = [graph]
    while graphs:
        inner = graphs.pop()
        yield from inner.initializer
        for sparse in inner.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for attribute in (each for node in inner.node for each in node.attribute):
            yield from _of_attribute(attribute)
            graphs += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def _of_attribute(attribute: AttributeProto) -> Iterator[TensorProto]:
    yield from attribute.tensors
    if attribute.HasField("t"):
        yield attribute.t
    for sparse in (*attribute.sparse_tensors, attribute.sparse_tensor):
        yield from (sparse.values, sparse.indices)
