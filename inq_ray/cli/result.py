"""The argument RESULT of commands: a run's folder or a packed file, and the flags under which it is evaluated."""

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from inq_ray.cli.status import exit_status
from inq_ray.data.source import named_source
from inq_ray.export.packed.reader import PackedFile, read
from inq_ray.files.shown import one_line, quoted
from inq_ray.models.registry import is_own
from inq_ray.training.flags.words import is_flag
from inq_ray.verification import is_onnx, packed_in

_KINDS = "a run's folder, or a file NAME.inq.safetensors"


def run_with_result(
    arguments: Sequence[str], program: str, usage: str, execute: Callable[[Path, list[str]], int]
) -> int:
    """Run a command whose first argument is RESULT; return its exit status.

    Args:
        arguments: Words of the command line.
        program: Program name for messages.
        usage: Text of --help, with {program} for the name.
        execute: Gets the path of the result, and the words after it.
    """
    if {"-h", "--help", "--help-all"} & {*arguments}:
        print(usage.format(program=program))
        return 0
    return exit_status(program, lambda: execute(*split_result(arguments)))


def split_result(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """Return RESULT, the first argument, and the arguments after it.

    Raises:
        ValueError: RESULT is missing or does not exist.
    """
    if not arguments or is_flag(arguments[0]) or not arguments[0]:
        raise ValueError(f"name the result first: {_KINDS}")
    path = Path(os.path.expanduser(arguments[0]))  # "~" of no one stays
    if not path.exists():
        raise ValueError(one_line(f"there is no {path}: name {_KINDS}"))
    return path, list(arguments[1:])


def evaluation_words(path: Path, words: Sequence[str]) -> list[str]:
    """Return the flags that evaluate a result: those of its network and images, then the user's flags.

    Args:
        path: A run's folder or a packed file.
        words: The user's flags; they take precedence.

    Raises:
        ValueError: The path is not a result, or the result does not name its network.
    """
    if is_onnx(path):
        raise ValueError(one_line(f"{path} is an ONNX file: inq-ray verify FILE --data DATA measures its accuracy"))
    file = packed_in(path)
    packed = read(file)
    return [*_network(packed, words), "--weights", str(file.absolute()), *image_flags(packed, words), *words]


def _network(packed: PackedFile, words: Sequence[str]) -> list[str]:
    if value_of("--arch", words) or value_of("-a", words):
        return []
    arch = fact(packed, "network", "arch")
    if not isinstance(arch, str):
        raise ValueError("the result does not name its network: give --arch")
    if is_own(arch):  # a file from others must not choose code of this machine
        raise ValueError(f"the result needs its author's own network: name yours by --arch, such as --arch {arch}")
    return ["--arch", arch]


def image_flags(packed: PackedFile, words: Sequence[str]) -> list[str]:
    """Return the flags of the result's images.

    Args:
        packed: The result.
        words: The user's flags; data sets with their own statistics need no others.
    """
    source = named_source(value_of("--data", words) or "digits")
    given: list[str] = []
    for flag, name in (("--mean", "mean"), ("--std", "std")):
        values = fact(packed, "images", name)
        if isinstance(values, list) and all(isinstance(each, float | int) for each in values):
            given += [] if source is not None and source.has_own_statistics else [flag, *map(repr, values)]
    for flag, name in (("--resize-size", "resize"), ("--crop-size", "crop")):
        size = fact(packed, "images", name)
        given += [flag, str(size)] if type(size) is int else []
    interpolation = fact(packed, "images", "interpolation")
    return [*given, "--interpolation", interpolation] if isinstance(interpolation, str) else given


def value_of(flag: str, words: Sequence[str]) -> str | None:
    """Return the last value of a flag, typed as `FLAG VALUE` or `FLAG=VALUE`; None if it was not typed."""
    found = None
    for before, word in itertools.pairwise(["", *words]):
        if before == flag:
            found = word
        elif word.startswith(f"{flag}="):
            found = word.removeprefix(f"{flag}=")
    return found


def fact(packed: PackedFile, part: str, name: str) -> Any:
    """Return a fact of a packed file, of any type; None if it is missing."""
    found = packed.facts.get(part)
    return found.get(name) if isinstance(found, dict) else None


def claimed(packed: PackedFile) -> tuple[int, int, str, str]:
    """Return the claim of a result: correct images, images, fingerprint of the data, name of the images.

    Raises:
        ValueError: The result claims no accuracy.
    """
    top1, count = (fact(packed, "accuracy", name) for name in ("top1", "num_images"))
    fingerprint, measured_on = (fact(packed, "accuracy", name) for name in ("data_fingerprint", "measured_on"))
    is_number = isinstance(top1, float | int) and not isinstance(top1, bool) and 0 <= top1 <= 100
    if not is_number or type(count) is not int or count < 1:
        given = packed.facts.get("accuracy")
        odd = "" if given is None else f", its facts are {quoted(given)}"
        raise ValueError(
            f"the result claims no accuracy to compare with{odd}: measure it by inq-ray evaluate, with --weights FILE"
        )
    return round(top1 * count / 100), count, str(fingerprint), str(measured_on)
