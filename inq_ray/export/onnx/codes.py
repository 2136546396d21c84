"""A quantized weight in an ONNX graph: its codes as an initializer, and nodes that compute the exact weight from them.

The inputs of these nodes are constants, so runtimes fold them on loading: the model then runs as the float model does.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from inq_ray.core.channels import AnyCodebook
from inq_ray.core.codebook import Codebook
from inq_ray.core.packing import pack_codes, packed_size, unpack_codes

Layout = Literal["small", "fast"]
LAYOUTS: tuple[Layout, ...] = ("small", "fast")


class CodeNodes:
    """Nodes and initializers that compute one weight.

    Args:
        weight: Name of the weight in the graph, which the last node computes.
        codebook: Levels of the weight.
        codes: uint8, the weight's shape.
        layout: "small" packs the codes; "fast" takes a byte per code and loads faster.
    """

    def __init__(self, weight: str, codebook: AnyCodebook, codes: Tensor, layout: Layout) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._weight = weight
        bits = codebook.num_bits
        if _has_bytes(bits, layout):
            flat = self._constant("codes", codes.reshape(-1).numpy())
        elif bits in (2, 4):
            flat = self._of_onnx_type(codes, bits)
        else:
            flat = self._of_packed(codes, bits)
        shaped = self._node("Reshape", [flat, self._constant("shape", np.array(codes.shape, np.int64))])
        index = self._node("Cast", [shaped], to=TensorProto.INT32)
        self._levels(index, codebook, codes.dim())

    def _levels(self, index: str, codebook: AnyCodebook, num_dims: int) -> None:
        """Add the table of levels, and a factor per channel if their powers differ; both are exact."""
        if isinstance(codebook, Codebook):
            self._node("Gather", [self._constant("levels", _table(codebook)), index], output=self._weight)
            return
        unit = Codebook(codebook.num_bits, 0, codebook.levels)
        levels = self._node("Gather", [self._constant("levels", _table(unit)), index])
        powers = np.ldexp(np.float32(1.0), [each or 0 for each in codebook.n_1]).astype(np.float32)
        shaped = self._constant("powers", powers.reshape(-1, *[1] * (num_dims - 1)))
        self._node("Mul", [levels, shaped], output=self._weight)

    def _of_onnx_type(self, codes: Tensor, bits: int) -> str:
        """Add codes as UINT2 or UINT4, which ONNX packs with the first code in the lowest bits."""
        packed = pack_codes(codes.reshape(-1), bits)
        kind = TensorProto.UINT4 if bits == 4 else TensorProto.UINT2
        name = f"{self._weight}.codes"
        self.initializers.append(helper.make_tensor(name, kind, [codes.numel()], packed.numpy().tobytes(), raw=True))
        return self._node("Cast", [name], to=TensorProto.UINT8)

    def _of_packed(self, codes: Tensor, bits: int) -> str:
        """Add packed codes, eight codes in `bits` bytes, and nodes that unpack them."""
        count = codes.numel()
        padded = torch.nn.functional.pad(codes.reshape(-1), (0, -count % 8))
        packed = self._constant("codes", pack_codes(padded, bits).reshape(-1, bits).numpy())
        begins = np.arange(8) * bits
        low, shift = begins // 8, begins % 8
        crosses = shift + bits > 8
        high, left = np.where(crosses, low + 1, low), np.where(crosses, 8 - shift, 0)
        mask = (1 << bits) - 1
        low_part = self._shifted(packed, low, shift, "RIGHT", np.full(8, mask))
        # The bits from the next byte; masked to 0 for codes within one byte.
        high_part = self._shifted(packed, high, left, "LEFT", np.where(crosses, mask, 0))
        parted = self._node("BitwiseOr", [low_part, high_part])
        flat = self._node("Reshape", [parted, self._constant("flat", np.array([-1], np.int64))])
        if len(padded) == count:
            return flat
        ends = [self._constant(name, np.array([value], np.int64)) for name, value in (("first", 0), ("end", count))]
        return self._node("Slice", [flat, *ends])

    def _shifted(
        self, packed: str, columns: NDArray[Any], shifts: NDArray[Any], direction: str, masks: NDArray[Any]
    ) -> str:
        side = direction.lower()
        bytes_ = self._node("Gather", [packed, self._constant(f"{side}_bytes", columns.astype(np.int64))], axis=1)
        amounts = self._constant(f"{side}_shifts", shifts.astype(np.uint8))
        moved = self._node("BitShift", [bytes_, amounts], direction=direction)
        return self._node("BitwiseAnd", [moved, self._constant(f"{side}_masks", masks.astype(np.uint8))])

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        full = f"{self._weight}.{name}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), full))
        return full

    def _node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        output = output or f"{self._weight}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"make_{output}", **attributes))
        return output


def codes_from(raw: bytes, bits: int, count: int, layout: Layout) -> Tensor:
    """Return the codes in the raw data of the initializer WEIGHT.codes, which may be damaged.

    Args:
        raw: The data.
        bits: Bits of a code.
        count: Number of codes.
        layout: Layout of the file.

    Returns:
        uint8 [count].

    Raises:
        ValueError: The data have another size.
    """
    width = 8 if _has_bytes(bits, layout) else bits
    stored = count if width in (2, 4, 8) else count + -count % 8
    if len(raw) != packed_size(width, stored):
        raise ValueError(f"has {len(raw):,} bytes of codes, expected {packed_size(width, stored):,}")
    data = torch.from_numpy(np.frombuffer(raw, np.uint8).copy())
    return unpack_codes(data, width, stored)[:count]


def _has_bytes(bits: int, layout: Layout) -> bool:
    """Return whether each code takes a byte."""
    return layout == "fast" or bits > 5


def _table(codebook: Codebook) -> NDArray[np.float32]:
    """Return the level of each code as float32 [2^bits]; 0 for codes that are never used."""
    codes = torch.arange(1 << codebook.num_bits, dtype=torch.uint8)
    return codebook.decode(codes).nan_to_num(0.0).numpy()
