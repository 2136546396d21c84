"""`inq-ray sensitivity`: measures without training how sensitive each layer is to few bits, and proposes bits.

Exit status 0: measured. 1: no bits reach the wanted size or accuracy. 2: the measurement could not start.
"""

import importlib.util
import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from inq_ray.cli.status import complain, exit_status
from inq_ray.core.codebook import MAX_BITS, MIN_BITS
from inq_ray.files.extra import install_command
from inq_ray.files.shown import quoted, shown
from inq_ray.files.whole import write_text
from inq_ray.report.run.sensitivity import FILE
from inq_ray.sensitivity.figures import figures_of, write_figures
from inq_ray.sensitivity.measure import Measured, measure
from inq_ray.sensitivity.picture import draw
from inq_ray.sensitivity.prepare import Prepared, prepare
from inq_ray.sensitivity.probe import Score
from inq_ray.sensitivity.proposal import Proposal, for_accuracy, for_size, recipe_of
from inq_ray.training.config import RunConfig
from inq_ray.training.config.checks import EachIs, between, count
from inq_ray.training.config.option import check_options, declared, option
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.flags.command import command_of
from inq_ray.training.flags.command import program as words_of
from inq_ray.training.flags.parse import Start, check_pretrained, our_words, run_defaults
from inq_ray.training.flags.paths import with_absolute_paths
from inq_ray.training.flags.read import read_flags
from inq_ray.training.flags.start import start_of, with_values
from inq_ray.training.float_check import doubt_of_given, warning_of_given
from inq_ray.training.report.screen import Screen

_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(k|M)?B")
_UNITS = {None: 1, "k": 1_000, "M": 1_000_000}
# What is proposed, and so cannot be typed.
_PROPOSED = ("quantization.weight_bits", "quantization.layer_bits")
_PICTURES = (".png", ".svg", ".pdf")


def _check_size(flag: str, value: str) -> str:
    if not _SIZE.fullmatch(value) or not num_bytes_of(value):
        raise ValueError(f"{flag} must be a size such as 90kB or 5.5MB, got {quoted(value)}")
    return value


def _path(value: str) -> Path:
    """Return a path with "~" expanded, unless there is no such home folder."""
    return Path(os.path.expanduser(value))


def _check_file(flag: str, value: str) -> str:
    path = _path(value).absolute()
    if not path.parent.is_dir():
        raise ValueError(f"{flag} {shown(value)}: its folder does not exist: create it first")
    if path.is_dir():
        raise ValueError(f"{flag} {shown(value)} must be a file, and is a folder: name a file in it")
    return value


def _check_picture(flag: str, value: str) -> str:
    if Path(value).suffix not in _PICTURES:
        raise ValueError(f"{flag} must end in {', '.join(_PICTURES)}, got {quoted(value)}")
    return _check_file(flag, value)


def _check_bits(flag: str, value: tuple[int, ...]) -> tuple[int, ...]:
    allowed = EachIs(lambda bits: MIN_BITS <= bits <= MAX_BITS, f"whole numbers from {MIN_BITS} to {MAX_BITS}")
    if not value:
        raise ValueError(f"{flag} has no value: give at least one, or leave it out")
    return tuple(sorted(set(allowed(flag, value))))


@dataclass(frozen=True, kw_only=True)
class Flags(Start):
    """Flags of a measurement."""

    images: int = option(
        512,
        "Number of validation images to measure on; held-out training images with --holdout.",
        count(1),
        is_first=True,
    )
    bits: tuple[int, ...] = option(
        (2, 3, 4, 5), "Numbers of bits to try in each layer, 2 to 8.", _check_bits, is_first=True
    )
    target_size: str | None = option(
        None, "Size of the packed file to propose bits for, such as 90kB or 5.5MB.", _check_size, is_first=True
    )
    target_accuracy: float | None = option(
        None, "Top-1 before re-training to propose bits for, percent.", between("(0, 100]"), is_first=True
    )
    save_recipe: str | None = option(
        None,
        "File for the configuration with the proposed bits; inq-ray quantize --config runs it.",
        _check_file,
        is_first=True,
    )
    output: str = option(FILE, "File for the measured figures, as JSON.", _check_file, is_first=True)
    plot: str | None = option(
        None, "File for a picture, such as sensitivity.png or .svg.", _check_picture, is_first=True
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.target_size is not None and self.target_accuracy is not None:
            raise ValueError("--target-size and --target-accuracy exclude each other: leave one of them out")
        if self.save_recipe is not None and not self.target:
            raise ValueError("--save-recipe needs --target-size or --target-accuracy, for which bits are proposed")

    @property
    def target(self) -> dict[str, float]:
        """What is wanted, as in sensitivity.json; empty if nothing is."""
        if self.target_size is not None:
            return {"bytes": num_bytes_of(self.target_size)}
        return {} if self.target_accuracy is None else {"top1": self.target_accuracy}


@dataclass(frozen=True, kw_only=True)
class Command:
    """A parsed command line.

    Attributes:
        flags: Flags of the measurement.
        config: Configuration of network, data and quantization.
        given: Values of its options that were typed, by dotted name.
    """

    flags: Flags
    config: RunConfig
    given: dict[str, Any]


def main(arguments: Sequence[str], program: str) -> int:
    """Run the command line; return the exit status.

    Args:
        arguments: Words of the command line.
        program: Program name for messages.
    """
    return exit_status(program, lambda: _execute(parse(arguments, program), program))


def num_bytes_of(size: str) -> int:
    """Return the bytes of a size such as 5.5MB."""
    found = _SIZE.fullmatch(size)
    assert found is not None, size
    return round(float(found[1]) * _UNITS[found[2]])


def parse(arguments: Sequence[str], program: str) -> Command:
    """Parse the command line: flags of the measurement, and those of a run.

    Raises:
        ValueError: A flag or its value is not allowed; one line.
        SystemExit: After printing the requested help.
    """
    run, own = declared(RunConfig), declared(Flags)
    for name in _PROPOSED:
        if run[name].flag in {word.partition("=")[0] for word in arguments}:
            raise ValueError(f"{run[name].flag}: bits are proposed here: name those to try with --bits")
    typed = read_flags(
        our_words(arguments),
        [*own.values(), *(each for name, each in run.items() if name not in _PROPOSED)],
        program=program,
        what="Quantize each layer alone and cumulatively, without training, and rank layers by how much the outputs of "
        "the network change. Propose bits of each layer for a size or an accuracy.\n\n"
        "Example: --data imagenet --arch resnet18 --weights DEFAULT --target-size 5MB",
        defaults=run_defaults,
    )
    flags = Flags(**{name: value for name, value in typed.items() if name in own})
    given = {name: value for name, value in typed.items() if name in run}
    start = start_of(given, recipe_name=flags.recipe, file=flags.config)
    if "quantization.codebook" not in given:
        start = start.replace(quantization={"codebook": "mse"})
    config = with_absolute_paths(with_values(start, given))
    check_pretrained(arguments, config.network.arch)
    return Command(flags=flags, config=config, given=given)


def _execute(command: Command, program: str) -> int:
    flags, config = command.flags, command.config
    if flags.plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise ValueError(f"--plot needs matplotlib: {install_command('report', 'matplotlib')}")
    notes, screen = Screen(stderr=True), Screen()
    prepared = prepare(config, flags.images)
    for note in (*prepared.notes, *_doubts(config, prepared)):
        notes.say(note)
    screen.say(f"measured on {prepared.images}; {_method(config)}")
    if not config.data.holdout:
        notes.say("bits are chosen by images of the test set: --holdout N measures on held-out training images instead")
    measured = measure(prepared.probe, flags.bits, prepared.facts, notes.say)
    _show(screen, prepared, measured)
    proposal = _proposal(flags, prepared, measured)
    figures = figures_of(config, prepared, measured, proposal, flags.target)
    write_figures(_path(flags.output), figures, "--output")
    screen.say_result("figures", flags.output, is_whole=True)
    if flags.plot is not None:
        _draw(flags.plot, config, prepared, measured)
        screen.say_result("plot", flags.plot, is_whole=True)
    if proposal is not None:
        _show_proposal(screen, command, proposal)
    elif flags.target:
        complain(program, _unreachable(flags, measured, is_calibrated=config.quantization.post_training))
        return 1
    return 0


def _doubts(config: RunConfig, prepared: Prepared) -> list[str]:
    """Return a line if the accuracy of the float network is implausible."""
    score, count = prepared.probe.float_score, prepared.num_images
    accuracy = Accuracy(num_samples=count, num_top1=round(score.top1 * count / 100), num_top5=0, loss=score.loss)
    doubt = doubt_of_given(config, prepared.info, accuracy)
    return [] if doubt is None else [f"warning: {warning_of_given(doubt)}"]


def _method(config: RunConfig) -> str:
    if config.quantization.post_training:
        return f"quantized as by --post-training, on {config.quantization.calibration_images} training images"
    return "weights are rounded to nearest, nothing is trained"


def _proposal(flags: Flags, prepared: Prepared, measured: Measured) -> Proposal | None:
    probe, facts = prepared.probe, prepared.facts
    if flags.target_size is not None:
        return for_size(probe, measured, num_bytes_of(flags.target_size), facts)
    if flags.target_accuracy is not None:
        return for_accuracy(probe, measured, flags.target_accuracy, facts)
    return None


def _unreachable(flags: Flags, measured: Measured, *, is_calibrated: bool) -> str:
    if flags.target_size is not None:
        size, _ = measured.uniform(measured.bits[0])
        return (
            f"--target-size {flags.target_size}: the smallest file, at {measured.bits[0]} bits in all layers, has "
            f"about {_size(size)}"
        )
    most, other = measured.bits[-1], "" if is_calibrated else ", or try --post-training"
    _, score = measured.uniform(most)
    return (
        f"--target-accuracy {flags.target_accuracy:g}: no bits reach it before re-training, {most} in all layers have "
        f"{score.top1:.2f} %: give larger --bits{other}"
    )


def _show(screen: Screen, prepared: Prepared, measured: Measured) -> None:
    """Print the ranking, the cumulative accuracies, and the same bits in all layers."""
    of_float = prepared.probe.float_score
    screen.say(f"float network: top-1 {of_float.top1:.2f} %, loss {of_float.loss:.4f}")
    screen.say("divergence from the float network's outputs (nats), with one layer quantized; most sensitive first:")
    screen.show_table(_table(measured, prepared, lambda name, bits: f"{measured.scores[name][bits].divergence:.4f}"))
    screen.say("top-1 (%) with this layer and all below it quantized:")
    screen.show_table(_table(measured, prepared, lambda name, bits: f"{measured.cumulative[bits][name].top1:.2f}"))
    for num_bits in measured.bits:
        size, score = measured.uniform(num_bits)
        screen.say_result(f"{num_bits} bits", f"in all layers: about {_size(size)}, {_scored(score)}")


def _table(measured: Measured, prepared: Prepared, cell: Callable[[str, int], str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for head in ("layer", "weights", *(f"{num_bits} bits" for num_bits in measured.bits)):
        table.add_column(head, justify="left" if head == "layer" else "right")
    for name in measured.ranking:
        cells = [cell(name, num_bits) for num_bits in measured.bits]
        table.add_row(shown(name), f"{prepared.probe.params[name].numel():,}", *cells)
    return table


def _show_proposal(screen: Screen, command: Command, proposal: Proposal) -> None:
    """Print the proposed flags, and write the recipe if it is asked for."""
    flags = command.flags
    recipe = recipe_of(proposal, command.given, recipe_name=flags.recipe, file=flags.config)
    weight_bits, layer_bits = proposal.layer_bits
    words = ["--weight-bits", str(weight_bits), *(["--layer-bits", *layer_bits] if layer_bits else [])]
    mean = f"{proposal.mean_bits:.2f} bits on average"
    screen.say_result("proposed", f"{_size(proposal.num_bytes)}, {mean}: {_scored(proposal.score)}, before re-training")
    screen.say_result("bits", shlex.join(words), is_whole=True)
    screen.say_result("next", command_of(recipe), is_whole=True)
    if flags.save_recipe is not None:
        path = _path(flags.save_recipe)
        try:
            write_text(path, with_absolute_paths(recipe).to_json() + "\n")
        except OSError as error:
            raise ValueError(f"--save-recipe {shown(path)}: cannot be written ({error.strerror or error})") from error
        screen.say_result("recipe", shlex.join([*words_of("quantize"), "--config", flags.save_recipe]), is_whole=True)


def _draw(plot: str, config: RunConfig, prepared: Prepared, measured: Measured) -> None:
    path = _path(plot)
    try:
        draw(measured, prepared.probe.float_score, path, f"Sensitivity of {config.network.arch}, {prepared.images}")
    except (OSError, ValueError) as error:
        raise ValueError(f"--plot {shown(path)}: cannot be written ({shown(error, 150)})") from error


def _scored(score: Score) -> str:
    return f"top-1 {score.top1:.2f} %, divergence {score.divergence:.4f}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes:,} bytes"
