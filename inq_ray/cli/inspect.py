"""`inq-ray inspect RESULT`: prints statistics of each tensor of a result, and the facts stored with the network.

Exit status 0: printed. 2: RESULT is not a result, or is damaged.
"""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from inq_ray.cli.result import run_with_result
from inq_ray.export.packed.reader import PackedFile
from inq_ray.export.table import TensorRow, rows_of, sizes_of
from inq_ray.files.shown import counted, escaped, shown
from inq_ray.training.report.screen import Screen
from inq_ray.verification import packed_in, read_result

_HELP = """\
usage: {program} RESULT

Print bits, exponents, zeros, entropy and bytes of each quantized tensor, and which stay float. RESULT is a run's
folder, a packed file (NAME.inq.safetensors), or an ONNX file that inq-ray export wrote."""


def main(arguments: Sequence[str], program: str) -> int:
    """Run the command line; return the exit status.

    Args:
        arguments: Words of the command line.
        program: Program name for messages.
    """
    return run_with_result(arguments, program, _HELP, _execute)


def _execute(path: Path, words: list[str]) -> int:
    if words:
        raise ValueError(f"{words[0]} is not an argument: RESULT is the only one")
    packed = read_result(path)
    screen = Screen()
    rows = rows_of(packed)
    screen.show_table(_table(rows))
    for name, value in _facts(packed):
        screen.say_result(name, value)
    screen.say_result("size", _sizes(packed, rows, packed_in(path).stat().st_size))
    screen.say_result("digest", packed.digest, is_whole=True)
    return 0


def _table(rows: Sequence[TensorRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for head in ("tensor", "shape", "bits", "exponents", "zeros", "entropy", "bytes"):
        table.add_column(head, justify="left" if head in ("tensor", "shape") else "right")
    for row in rows:
        if row.bits is not None:
            exponents = "" if row.exponents is None else f"{row.exponents[0]} to {row.exponents[1]}"
            bits = f"{row.bits}" if row.levels == "paper" else f"{row.bits} ({row.levels})"
            zeros = f"{100 * row.num_zero / max(1, row.num_values):.1f} %"
            shape = "x".join(map(str, row.shape))
            table.add_row(shown(row.name), shape, bits, exponents, zeros, f"{row.entropy:.2f}", f"{row.num_bytes:,}")
    rest = [row for row in rows if row.bits is None]
    size = sum(row.num_bytes for row in rest)
    table.add_row(
        counted(len(rest), "other tensor"),
        f"{sum(row.num_values for row in rest):,} values",
        *[""] * 4,
        f"{size:,}",
    )
    return table


def _facts(packed: PackedFile) -> list[tuple[str, str]]:
    """Return a line for each fact; class names are counted."""
    lines = []
    for name, value in packed.facts.items():
        if name == "class_names" and isinstance(value, list):
            value = f"{len(value)}: {', '.join(map(str, value[:3]))}{', ...' if len(value) > 3 else ''}"
        elif isinstance(value, dict):
            value = ", ".join(f"{key} {each}" for key, each in value.items())
        lines.append((f"{escaped(shown(name, 20)).replace('_', ' ')} ", shown(value, 400)))
    return lines


def _sizes(packed: PackedFile, rows: Sequence[TensorRow], size: int) -> str:
    sizes = sizes_of(packed, rows)
    return (
        f"{size:,} bytes; float32 has {sizes.as_float:,}, int8 {sizes.as_int8:,}, an ideal code of single weights "
        f"{sizes.limit:,.0f}"
    )
