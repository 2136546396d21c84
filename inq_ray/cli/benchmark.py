"""`inq-ray benchmark`: measures a run's parts on this machine or cluster, and prints which flags are worth it there.

Exit status 0: measured. 1: a worker failed. 2: the benchmark could not start.
"""

import datetime as dt
import importlib.util
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.table import Table

from inq_ray.benchmark.advice import Advice, advise
from inq_ray.benchmark.estimate import estimate
from inq_ray.benchmark.figures import World, write_figures
from inq_ray.benchmark.images import random_source
from inq_ray.benchmark.machine import machine_facts, package_facts
from inq_ray.benchmark.picture import draw
from inq_ray.benchmark.subject import EPOCH_STEPS, PORTIONS
from inq_ray.benchmark.tables import Rows, lines_of, tables_of, worlds_table
from inq_ray.cli.status import complain, exit_status
from inq_ray.cluster.benchmark import benchmark
from inq_ray.cluster.connection import check_fits_here
from inq_ray.cluster.failure import RunFailedError
from inq_ray.data.image_set import SourceInfo
from inq_ray.files.extra import install_command
from inq_ray.files.shown import shown
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import check_options, declared, option
from inq_ray.training.config.worker_range import WorkerRange
from inq_ray.training.flags.parse import Start, check_pretrained, our_words, run_defaults
from inq_ray.training.flags.paths import with_absolute_paths
from inq_ray.training.flags.read import read_flags
from inq_ray.training.flags.start import start_of, with_values
from inq_ray.training.loop.build import precision_of
from inq_ray.training.report.console import Console
from inq_ray.training.report.screen import Screen
from inq_ray.training.task.check import check
from inq_ray.training.task.groups import groups_of

_DEFAULT_ARCH = "resnet18"
# Without --batch-size on CPUs, where a step of a recipe's batch takes minutes.
_CPU_IMAGES = 8


def _check_folder(flag: str, value: str) -> str:
    path = Path(os.path.expanduser(value)).absolute()
    if not path.parent.is_dir() or (path.exists() and not path.is_dir()):
        raise ValueError(f"{flag} {shown(value)} must be a folder, new or not, in one that exists")
    return value


@dataclass(frozen=True, kw_only=True)
class Flags(Start):
    """Flags of a benchmark."""

    quick: bool = option(False, "Measure with few repetitions, for a first look.", is_first=True)
    dry_run: bool = option(False, "Check everything, and measure nothing.", is_first=True)
    output: str = option(
        "benchmark", "Folder for benchmark.json and benchmark.png, which are replaced.", _check_folder, is_first=True
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A parsed command line.

    Attributes:
        flags: Flags of the benchmark.
        config: Configuration of the run that is measured.
        has_data: Whether the input is measured with --data; else images are random.
        notes: Lines about values that were not typed.
    """

    flags: Flags
    config: RunConfig
    has_data: bool
    notes: tuple[str, ...]


def main(arguments: Sequence[str], program: str) -> int:
    """Run the command line; return the exit status.

    Args:
        arguments: Words of the command line.
        program: Program name for messages.
    """

    def command() -> int:
        try:
            return _execute(parse(arguments, program), [*program.split(), *arguments])
        except RunFailedError as error:
            complain(program, f"failed: {error}", 1000)
            return 1

    return exit_status(program, command)


def parse(arguments: Sequence[str], program: str) -> Command:
    """Parse the command line: flags of the benchmark, and those of a run.

    Raises:
        ValueError: A flag or its value is not allowed; one line.
        SystemExit: After printing the requested help.
    """
    run, own = declared(RunConfig), declared(Flags)
    typed = read_flags(
        our_words(arguments),
        [*own.values(), *run.values()],
        program=program,
        what="Measure what a run costs here: steps by what workers exchange and by portion of frozen weights, stages, "
        "optimizer, link, checkpoints, input. Print which --gradient-communication and --num-workers are worth it. All "
        "flags of inq-ray quantize are accepted; those about the number of epochs and stages have no effect. Without "
        "--data, images are random. --num-workers 1..8 measures 1, 2, 4 and 8 workers.\n\n"
        "Example: --data imagenet --arch resnet18 --batch-size 256 --num-workers 1..8 --use-gpu",
        defaults=lambda typed: {**run_defaults(_with_arch(typed)), "data.data": typed.get("data.data")},
    )
    flags = Flags(**{name: value for name, value in typed.items() if name in own})
    given = {name: value for name, value in typed.items() if name in run}
    has_data = "data.data" in given or flags.config is not None
    start = start_of(_with_arch(given) if not has_data else given, recipe_name=flags.recipe, file=flags.config)
    notes = []
    workers = given.get("cluster.num_workers", start.cluster.num_workers)
    if not given.get("cluster.use_gpu") and "training.batch_size" not in given and flags.config is None:
        most = WorkerRange.parse(workers).most
        accumulate = given.get("training.accumulate", start.training.accumulate)
        given["training.batch_size"] = _CPU_IMAGES * most * accumulate
        notes.append(f"batch size {given['training.batch_size']}, for a first look on CPUs: give --batch-size of yours")
    config = with_absolute_paths(with_values(start, given))
    if not has_data and config.data.jpeg_decoder == "nvjpeg":
        raise ValueError("--jpeg-decoder nvjpeg needs --data: random images are not decoded")
    if config.plain:
        raise ValueError("--plain has no stages, and so no frozen weights: leave it out")
    check_pretrained(arguments, config.network.arch)
    return Command(flags=flags, config=config, has_data=has_data, notes=tuple(notes))


def _with_arch(typed: Any) -> dict[str, Any]:
    """Return typed values with the network that is measured without --data and --arch."""
    return dict(typed) if "data.data" in typed else {"network.arch": _DEFAULT_ARCH, **typed}


def _execute(command: Command, words: Sequence[str]) -> int:
    flags, config = command.flags, command.config
    check_fits_here(config.cluster, loader_workers=config.data.loader_workers)
    console, screen = Console(config), Screen()
    source = None
    if not command.has_data:
        source = random_source(config, None, num_train=config.training.batch_size * EPOCH_STEPS)
    opened, model = check(config, tell=console.say, source=source, needs_weights=False)
    facts = _facts(config, command, opened.info, model, words)
    portions = ", ".join(f"{portion:g}" for portion in PORTIONS)
    measured = f"portions {portions} are measured, not those of --iterative-steps, and without --compensate"
    for note in (*command.notes, *opened.notes, *_busy(facts["machine"]["load"]), measured):
        console.say(note)
    console.say(estimate(config, model, opened.info, is_quick=flags.quick, has_data=command.has_data))
    if flags.dry_run:
        console.say(
            f"would measure {config.network.arch} on --num-workers {config.cluster.workers}: nothing was started"
        )
        return 0
    fingerprint = opened.info.fingerprint if command.has_data else None
    del opened, model, source  # the workers have their own
    try:
        worlds = benchmark(config, console, is_quick=flags.quick, fingerprint=fingerprint, verbose=flags.verbose)
    finally:
        console.close()
    advice = advise(worlds, config.training.batch_size)
    _show(screen, command, worlds, advice)
    _write(screen, command, facts, worlds, advice)
    return 0


def _busy(load: float) -> list[str]:
    """Return a line if other programs use this machine."""
    num_cpus = len(os.sched_getaffinity(0))
    if load < 0.5 * num_cpus:
        return []
    return [f"other programs use this machine (load {load:g} on {num_cpus} CPUs): times are longer, ratios are not"]


def _facts(config: RunConfig, command: Command, info: SourceInfo, model: Any, words: Sequence[str]) -> dict[str, Any]:
    """Return the entries of benchmark.json that are known before the start."""
    groups = groups_of(model, config)
    params = [(param.numel(), group["weight_bits"] is not None) for group in groups for _, param in group["params"]]
    training, cluster = config.training, config.cluster
    return {
        "inq_ray": package_facts(),
        "command": shlex.join(words),
        "time": dt.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine_facts(),
        "network": {
            "arch": config.network.arch,
            "num_parameters": sum(num for num, _ in params),
            "num_quantized": sum(num for num, is_quantized in params if is_quantized),
            "weight_bits": config.quantization.weight_bits,
        },
        "images": {
            "data": config.data.data if command.has_data else None,
            "channels": info.channels,
            "height": info.height,
            "width": info.width,
        },
        "settings": {
            "batch_size": training.batch_size,
            "accumulate": training.accumulate,
            "precision": precision_of(training, torch.device("cuda" if cluster.use_gpu else "cpu")),
            "use_gpu": cluster.use_gpu,
            "cpus_per_worker": cluster.cpus_per_worker,
            "is_quick": command.flags.quick,
        },
    }


def _show(screen: Screen, command: Command, worlds: Sequence[World], advice: Sequence[Advice]) -> None:
    """Print tables and advice."""
    config = command.config
    batch_size = config.training.batch_size
    for world in worlds:
        count = f"{world.num_workers} worker{'s' if world.num_workers > 1 else ''}"
        link = "" if world.num_workers > 1 else "; there is no link, so nothing is exchanged"
        screen.say(f"{count}, {config.network.arch}, batch size {batch_size}{link}:")
        for table in tables_of(world):
            screen.say(table.title)
            screen.show_table(_table(table))
        for line in lines_of(world):
            screen.say(line)
    if len(worlds) > 1:
        speeds = worlds_table(worlds, batch_size)
        screen.say(speeds.title)
        screen.show_table(_table(speeds))
    if not command.has_data:
        screen.say("input not measured, images were random: name yours by --data")
    for each in advice:
        screen.say_result("worth it", f"{each.flag}: {each.reason}")


def _table(rows: Rows) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in rows.heads:
        table.add_column(head, justify="right")
    for row in rows.rows:
        table.add_row(*row)
    return table


def _write(
    screen: Screen, command: Command, facts: dict[str, Any], worlds: Sequence[World], advice: Sequence[Advice]
) -> None:
    """Write figures and picture."""
    folder = Path(os.path.expanduser(command.flags.output))
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {shown(folder)}: cannot be created ({error.strerror or error})") from error
    write_figures(folder / "benchmark.json", facts, worlds, advice)
    screen.say_result("figures", str(folder / "benchmark.json"), is_whole=True)
    if importlib.util.find_spec("matplotlib") is None:
        screen.say_result("picture", f"needs matplotlib: {install_command('report', 'matplotlib')}")
        return
    title = f"{command.config.network.arch}, batch size {command.config.training.batch_size}"
    path = folder / "benchmark.png"
    try:
        draw(worlds, command.config.training.batch_size, path, title)
    except OSError as error:
        raise ValueError(f"--output {shown(path)}: cannot be written ({error.strerror or error})") from error
    screen.say_result("picture", str(path), is_whole=True)
