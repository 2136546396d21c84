"""The program `inq-ray`, also called by `python -m inq_ray`."""

import difflib
import sys
from importlib import import_module
from typing import NamedTuple, NoReturn

from inq_ray import __version__
from inq_ray.cluster.leaving import leave

PROGRAM = "inq-ray"


class Command(NamedTuple):
    """A command of the program.

    Attributes:
        module: Module of its function, imported when the command is run.
        function: Function that takes arguments and the program name for messages, and returns the exit status.
        what: Description in the list of commands.
    """

    module: str
    function: str
    what: str


COMMANDS = {
    "quantize": Command("inq_ray.cli.quantize", "main", "quantize a trained network to powers of two"),
    "evaluate": Command("inq_ray.cli.quantize", "main_evaluate", "print top-1 and top-5 of a network"),
    "verify": Command("inq_ray.cli.verify", "main", "check a result, and its accuracy on data"),
    "inspect": Command("inq_ray.cli.inspect", "main", "print bits, exponents, zeros and bytes of each tensor"),
    "export": Command("inq_ray.cli.export", "main", "write a result as ONNX, QONNX, C header or float tensors"),
    "report": Command("inq_ray.cli.report", "main", "write a page with charts of a run or sweep"),
    "sensitivity": Command("inq_ray.cli.sensitivity", "main", "rank layers by sensitivity, and propose bits by layer"),
    "sweep": Command("inq_ray.cli.sweep", "main", "search schedules, learning rates and bits"),
    "benchmark": Command(
        "inq_ray.cli.benchmark", "main", "measure what a run costs here, and which flags are worth it"
    ),
    "parquet": Command("inq_ray.cli.parquet", "main", "write a folder of images as Parquet"),
    "demo": Command("inq_ray.cli.quantize", "main", "quantize a small network for handwritten digits"),
}


def main() -> NoReturn:
    """Run the program with the process's command line, and exit."""
    leave(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command; return its exit status.

    Args:
        arguments: Command and its flags, or one of -h, --help and --version.
    """
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(_usage())
        return 0
    if name == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1) or list(COMMANDS)
        print(f"{PROGRAM}: there is no command {name[:80]!r}; nearest: {', '.join(near)}", file=sys.stderr)
        return 2
    command = COMMANDS[name]
    function = getattr(import_module(command.module), command.function)
    try:
        status: int = function(rest, f"{PROGRAM} {name}")
    except SystemExit as end:  # after --help
        return end.code if isinstance(end.code, int) else 0
    return status


def run_job(name: str, program: str) -> NoReturn:
    """Run a command from a script in jobs/, and exit.

    Args:
        name: Name of the command.
        program: Program name for messages.
    """
    command = COMMANDS[name]
    leave(getattr(import_module(command.module), command.function)(sys.argv[1:], program))


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.what}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [FLAGS]",
            "",
            "Quantize a trained network's weights to powers of two (Incremental Network Quantization), on Ray workers.",
            "",
            *lines,
            "",
            f"{PROGRAM} COMMAND --help shows the flags of a command. Example:",
            f"  {PROGRAM} quantize --data imagenet --arch resnet18 --weights DEFAULT --weight-bits 5 --dry-run",
        ]
    )
