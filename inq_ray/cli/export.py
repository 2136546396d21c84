"""`inq-ray export RESULT --to FORMAT [OUT]`: writes a result in another format.

Exit status 0: written. 2: the result could not be written.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from inq_ray import safetensors_file
from inq_ray.cli.result import fact, split_result
from inq_ray.cli.status import exit_status
from inq_ray.export.header_files import export_header
from inq_ray.export.packed.reader import SUFFIX, PackedFile, read
from inq_ray.export.packed.writer import fill
from inq_ray.files.extra import install_command
from inq_ray.files.shown import one_line, quoted
from inq_ray.files.whole import whole
from inq_ray.models.registry import create, is_own
from inq_ray.training.config.option import check_options, declared, option
from inq_ray.training.flags.read import read_flags
from inq_ray.training.flags.words import is_flag
from inq_ray.verification import packed_in


class Target(NamedTuple):
    """A format of exports.

    Attributes:
        write: Writes a result to a path, which does not exist or is a file, according to the flags.
        suffix: Suffix of the output's default name.
        what: Description for --help.
    """

    write: "Callable[[PackedFile, Path, Flags], None]"
    suffix: str
    what: str


def _is_target(flag: str, value: str) -> str:
    if value not in TARGETS:
        raise ValueError(f"{flag} must be one of {', '.join(TARGETS)}, got {quoted(value)}")
    return value


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Format and details of an export."""

    to: str = option("", "Format: onnx, qonnx, header or float.", _is_target, is_first=True)
    layout: Literal["small", "fast"] = option(
        "small",
        "Layout of codes in an ONNX file: small packs them; fast takes a byte per code and loads faster.",
        is_first=True,
    )
    arch: str = option("", "Network, as module:function; only for results of your own networks.", is_first=True)

    def __post_init__(self) -> None:
        check_options(self)


def main(arguments: Sequence[str], program: str) -> int:
    """Run the command line; return the exit status.

    Args:
        arguments: Words of the command line.
        program: Program name for messages.
    """
    return exit_status(program, lambda: _execute(arguments, program))


def _execute(arguments: Sequence[str], program: str) -> int:
    formats = "\n\n".join(f"{name}: {target.what}" for name, target in TARGETS.items())
    what = f"Write RESULT, a run's folder or a packed file, to OUT in another format.\n\n{formats}"
    options = declared(Flags).values()
    if {"-h", "--help", "--help-all"} & {*arguments}:
        read_flags(["--help"], options, program=f"{program} RESULT [OUT]", what=what, defaults=lambda _: {})
    path, words = split_result(arguments)
    words, out = _without_out(words)
    flags = Flags(**read_flags(words, options, program=program, what=what, defaults=lambda _: {}))
    file = packed_in(path)
    packed, target = read(file), TARGETS[flags.to]
    output = Path(os.path.expanduser(out or f"{file.name.removesuffix(SUFFIX)}{target.suffix}"))
    target.write(packed, output, flags)
    print(f"{flags.to}: {_size(output):,} bytes in {output}")
    return 0


def _without_out(words: list[str]) -> tuple[list[str], str | None]:
    """Split the words into flags with their values and the remaining word, OUT; None if there is none."""
    flags: list[str] = []
    out = None
    position = 0
    while position < len(words):
        word = words[position]
        if not is_flag(word):
            if out is not None:
                raise ValueError(f"{quoted(word)} is an argument too many: OUT is {quoted(out)}")
            out = word
            position += 1
            continue
        length = 1 if "=" in word else 2
        flags += words[position : position + length]
        position += length
    return flags, out


def _size(output: Path) -> int:
    return sum(each.stat().st_size for each in output.iterdir()) if output.is_dir() else output.stat().st_size


def _write_float(packed: PackedFile, output: Path, flags: Flags) -> None:  # noqa: ARG001
    try:
        with whole(output) as beside:
            safetensors_file.save(beside, packed.state, {"format": "pt"})
    except OSError as error:
        raise ValueError(one_line(f"cannot write {output}: {error.strerror or error}")) from error


def _write_header(packed: PackedFile, output: Path, flags: Flags) -> None:  # noqa: ARG001
    export_header(packed, output)


def _write_onnx(packed: PackedFile, output: Path, flags: Flags) -> None:
    try:
        from inq_ray.export.onnx.model import export_onnx
    except ModuleNotFoundError as error:
        raise ValueError(f"--to onnx needs {error.name}: {install_command('onnx', 'onnx', 'onnxscript')}") from error
    export_onnx(
        *_network(packed, flags),
        output,
        quantized=packed.quantized,
        layout=flags.layout,
        facts=packed.facts,
        digest=packed.digest,
    )


def _write_qonnx(packed: PackedFile, output: Path, flags: Flags) -> None:
    try:
        from inq_ray.export.onnx.qonnx import export_qonnx
    except ModuleNotFoundError as error:
        raise ValueError(f"--to qonnx needs {error.name}: {install_command('onnx', 'onnx', 'onnxscript')}") from error
    network = _network(packed, flags)
    export_qonnx(*network, output, quantized=packed.quantized, facts=packed.facts, digest=packed.digest)


def _network(packed: PackedFile, flags: Flags) -> tuple[nn.Module, Tensor]:
    """Return the network with its weights, and a batch of images of its input size."""
    arch = flags.arch or fact(packed, "network", "arch")
    if not isinstance(arch, str) or (is_own(arch) and not flags.arch):
        raise ValueError("the result needs its author's own network: name yours by --arch, such as mynet:build")
    numbers = [fact(packed, "network", name) for name in ("num_classes", "in_channels")]
    size = [fact(packed, "images", name) for name in ("height", "width")]
    if not all(type(each) is int and 0 < each < 2**20 for each in (*numbers, *size)):
        raise ValueError(
            "the result lacks the number of classes, channels and pixels: save it with these facts (docs/format.md)"
        )
    image_size = fact(packed, "network", "image_size")
    model = create(
        arch,
        num_classes=numbers[0],
        in_channels=numbers[1],
        image_size=image_size if type(image_size) is int else None,
    )
    fill(model, packed, flags.arch or "the result")
    return model, torch.zeros(2, numbers[1], *size)


TARGETS = {
    "onnx": Target(_write_onnx, ".onnx", "codes and their levels in an ONNX file, exact in ONNX Runtime"),
    "qonnx": Target(_write_qonnx, ".qonnx.onnx", "float weights behind FloatQuant nodes, for qonnx and FINN"),
    "header": Target(_write_header, "-header", "a folder with a C header, and memory files for Verilog"),
    "float": Target(_write_float, ".safetensors", "float tensors, the same as a run's model.safetensors"),
}
