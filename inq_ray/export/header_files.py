"""Export for hardware: a C header, and files of hexadecimal codes for Verilog's $readmemh.

`weights.h` contains every tensor in row-major order: the codes of quantized ones as uint8_t, all others as float,
double or int64_t. NAME.mem contains the same codes, one per line.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from inq_ray.core.codebook import Codebook
from inq_ray.export.packed.reader import PackedFile, PackedTensor
from inq_ray.files.folder import write_folder
from inq_ray.files.shown import one_line, quoted

_HEAD = """\
/* Weights of a network quantized to 0 and powers of two, made by inq-ray export.
 *
 * NAME_codes has a code for each weight in row-major order; code 0 is the weight 0. Otherwise the bit NAME_SIGN is set
 * for negative weights, and the other bits, an index from 1, give the magnitude 2^(NAME_n_2 + index - 1). NAME_n_2 has
 * NAME_CHANNELS numbers: one, or one for each index of the first dimension. Integer hardware needs only these to shift
 * and add. Biases and normalization are floats and need multiplications.
 */
#ifndef INQ_RAY_WEIGHTS_H
#define INQ_RAY_WEIGHTS_H

#include <stdint.h>
"""
_LINE_WIDTH = 110


def export_header(packed: PackedFile, folder: str | Path) -> list[str]:
    """Write weights.h and a memory file for each quantized tensor into a new folder.

    Returns:
        The names of the files.

    Raises:
        ValueError: The folder exists, or cannot be written; two tensors would have the same name in C, or one is
            complex.
    """
    files = {"weights.h": _header(packed).encode()}
    for name, tensor in packed.quantized.items():
        digits = -(-tensor.codebook.num_bits // 4)
        lines = [f"{code:0{digits}x}\n" for code in tensor.codes.reshape(-1).tolist()]
        files[f"{_identifier(name)}.mem"] = "".join(lines).encode()
    folder = Path(folder)
    if folder.exists():
        raise ValueError(one_line(f"{folder} exists: use another folder"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_folder(folder, files)
    except OSError as error:
        raise ValueError(one_line(f"cannot write {folder}: {error.strerror or error}")) from error
    return sorted(files)


def _header(packed: PackedFile) -> str:
    names = {name: _identifier(name) for name in packed.state}
    identifiers = list(names.values())
    for name in packed.quantized:
        identifiers += [f"{names[name]}_codes", f"{names[name]}_n_2", f"{names[name].upper()}_BITS"]
    if len({*identifiers}) < len(identifiers):
        raise ValueError(f"some names of tensors give the same C identifier: {quoted(list(names))}")
    parts = [_HEAD]
    for name, tensor in packed.state.items():
        shape = "x".join(map(str, tensor.shape)) or "1"
        if name in packed.quantized:
            parts.append("\n".join(_quantized(names[name], _comment(name), shape, packed.quantized[name])))
        else:
            parts.append("\n".join(_plain(names[name], _comment(name), shape, tensor)))
    if any(re.search(r"\b(NAN|INFINITY),", part) for part in parts):
        parts.insert(1, "#include <math.h>\n")
    return "\n".join([*parts, "#endif\n"])


def _quantized(name: str, comment: str, shape: str, tensor: PackedTensor) -> Iterator[str]:
    codebook = tensor.codebook
    n_2 = [codebook.n_2] if isinstance(codebook, Codebook) else list(codebook.n_2)
    yield f"/* {comment}, {shape}: {codebook.num_bits} bits, levels {codebook.levels} */"
    yield f"#define {name.upper()}_BITS {codebook.num_bits}"
    yield f"#define {name.upper()}_SIGN {1 << (codebook.num_bits - 1)}"
    yield f"#define {name.upper()}_CHANNELS {len(n_2)}"
    yield _array("int8_t", f"{name}_n_2", [str(each or 0) for each in n_2])
    yield _array("uint8_t", f"{name}_codes", [str(code) for code in tensor.codes.reshape(-1).tolist()])
    yield ""


def _plain(name: str, comment: str, shape: str, tensor: Tensor) -> Iterator[str]:
    yield f"/* {comment}, {shape}: not quantized */"
    flat = tensor.reshape(-1)
    if tensor.is_complex():
        raise ValueError(f"{quoted(name)} has complex numbers, which a C header does not have")
    if tensor.dtype == torch.float64:
        yield _array("double", name, [_literal(value) for value in flat.tolist()])
    elif tensor.is_floating_point():
        yield _array("float", name, [_literal(value, "f") for value in flat.to(torch.float32).tolist()])
    else:
        yield _array("int64_t", name, [str(int(value)) for value in flat.tolist()])
    yield ""


def _literal(value: float, suffix: str = "") -> str:
    """Return a number as a hexadecimal float of C99, which is exact; others by their names in math.h."""
    if math.isfinite(value):
        return f"{value.hex()}{suffix}"
    return "NAN" if math.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"


def _array(kind: str, name: str, values: list[str]) -> str:
    lines, line = [], "   "
    for value in values or ["0"]:
        if len(line) + len(value) > _LINE_WIDTH:
            lines.append(line)
            line = "   "
        line += f" {value},"
    body = "\n".join([*lines, line])
    return f"static const {kind} {name}[{max(1, len(values))}] = {{\n{body}\n}};"


def _identifier(name: str) -> str:
    """Return a name as a C identifier: other characters become underscores."""
    found = re.sub(r"[^0-9A-Za-z_]", "_", name)
    return f"w{found}" if not found or found[0].isdigit() else found


def _comment(name: str) -> str:
    """Return a name that is safe in a C comment."""
    return re.sub(r"[^ -~]|[*/\\]", "_", name)
