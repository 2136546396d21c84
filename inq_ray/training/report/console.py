"""Console output of a run: a live line on a terminal, plain lines elsewhere, tables at the end."""

import time
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from inq_ray import __version__
from inq_ray.files.shown import counted, shown
from inq_ray.models.layers import LayerRow, sums
from inq_ray.training.config import RunConfig
from inq_ray.training.evaluation.accuracy import percentages
from inq_ray.training.loop.time_spent import Spent
from inq_ray.training.report.events import Event, Note, Progress, Row, Started, Waiting, WorkersPlaced
from inq_ray.training.report.incident import Incident
from inq_ray.training.report.next_command import next_command
from inq_ray.training.report.plan import Plan
from inq_ray.training.report.screen import Screen, duration, fitting, one_line

# Points of top-1 that no quantization gains over a float network that gets the images it was trained with.
_DOUBTFUL_GAIN = 5.0
# Shortest time between progress lines without a terminal.
_PLAIN_PROGRESS_SECONDS = 60.0


class Console:
    """Prints events: permanent epoch lines and, on a terminal, a live progress line.

    Args:
        config: Configuration of the run.
        stderr: Whether to print to standard error.
    """

    def __init__(self, config: RunConfig, *, stderr: bool = False) -> None:
        self.config = config
        self._screen = Screen(stderr=stderr)
        self._remaining_seconds: float | None = None

    def report(self, event: Event) -> None:
        """Print an event."""
        match event:
            case Waiting():
                self._screen.wait_for(event.text)
            case WorkersPlaced():
                for line in event.lines:
                    self.say(line)
                self._screen.wait_for("opening data and network")
            case Started():
                self.say(_started(event))
                self._screen.wait_for("the first steps, or a first measurement")
            case Row():
                self._screen.end_wait()
                self._show_row(event)
            case Note() | Incident():
                self.say(event.text)
            case Progress():
                self._show_progress(event)
            case _:
                pass

    def start(self) -> None:
        """Print that the run starts; Ray takes a while until the first event."""
        self.say(_headline(self.config))
        if not self._screen.is_terminal:
            self.say("starting Ray and the workers")

    def say(self, line: str) -> None:
        """Print a permanent line."""
        self._screen.say(line)

    def close(self) -> None:
        """End the live line."""
        self._screen.close()

    def show_plan(self, plan: Plan, layers: Sequence[LayerRow]) -> None:
        """Print what the run would do, and the bits of each parameter."""
        config = self.config
        self._screen.show_table(_layer_table(layers))
        self.say(_headline(config))
        self.say(
            f"{plan.num_train:,} training images, accuracy measured on {plan.num_validation:,} ({_measured_on(config)})"
        )
        of_all = f"{plan.num_quantized:,} of {plan.num_parameters:,} parameters ({_percent(plan)})"
        verb = "is" if plan.num_tensors == 1 else "are"
        self.say(f"{counted(plan.num_tensors, 'tensor')}, {of_all}, {verb} quantized to powers of two")
        table = Table("stage", "portion", "weights frozen", "epochs", "learning rate", "steps")
        for phase in plan.phases:
            name = "float" if phase.stage == 0 else f"{phase.stage}/{len(config.quantization.iterative_steps)}"
            frozen, steps = f"{phase.num_frozen:,}", f"{phase.steps:,}"
            lr = "by trials" if phase.lr is None else f"{phase.lr:g}"
            table.add_row(name, f"{phase.portion:g}", frozen, str(phase.epochs), lr, steps)
        self._screen.show_table(table)
        if plan.num_batchnorm:
            self.say(f"BatchNorm statistics are estimated at the end from {plan.num_batchnorm:,} training images")
        if plan.seconds is None:
            self.say("time not estimated: this machine has no GPU to time a step on")
        else:
            text = duration(plan.seconds)
            self.say(f"about {text} of training, estimated from one step on this machine; plus startup and validation")

    def show_summary(self, summary: dict[str, Any], folder: str) -> None:
        """Print the table of stages, the folder of the result, and the next command."""
        self.close()
        result = self._screen.say_result
        float_top1 = summary["float_top1"]
        if summary["stages"]:
            self._screen.show_table(_stage_table(summary, float_top1))
            verified = summary["verification"]
            zeros = 100 * verified["num_zero"] / max(1, verified["num_weights"])
            result(
                "verified",
                f"{verified['num_weights']:,} weights in {counted(verified['num_tensors'], 'tensor')} are 0 or ±2^k "
                f"and equal their codes, bit for bit ({zeros:.1f} % zeros)",
            )
        else:
            self.say(percentages(summary["top1"], summary["top5"], summary["num_classes"]))
        if float_top1 is not None and summary["top1"] - float_top1 > _DOUBTFUL_GAIN:
            result(
                "warning",
                f"{summary['top1'] - float_top1:+.2f} points against float is more than quantization gains: the float "
                "network was probably given other images than it was trained with; check --mean, --std and sizes",
            )
        if summary["num_bad_images"]:
            result("left out", f"{summary['num_bad_images']} unreadable image(s), listed in summary.json")
        if summary["events"]["counts"]:
            result("events", f"{_events(summary['events'])}, listed in events.jsonl")
        if summary["spent"]["seconds"]:
            result("speed", _spent(summary["spent"]))
        result("digest", summary["digest"], is_whole=True)
        result("result", folder, is_whole=True)
        is_quantized, in_memory = bool(summary["stages"]), summary["images_in_memory"]
        command = next_command(self.config, folder, is_quantized=is_quantized, in_memory=in_memory)
        result("next", command, is_whole=True)

    def _show_row(self, row: Row) -> None:
        where = "float    " if row.stage == 0 else f"stage {row.stage}/{len(self.config.quantization.iterative_steps)}"
        what = f"epoch {row.epoch}" if row.epoch else "as given" if row.stage == 0 else "quantized"
        parts = [(where, 0), (f"portion {row.portion:<6g}", 1), (f"{what:9}", 0), (f"top-1 {row.top1:6.2f}", 0)]
        if row.train_loss is not None and row.images_per_second is not None:
            parts += [(f"loss {row.train_loss:.4f}", 3), (f"{row.images_per_second:,.0f} images/s", 5)]
            if self._remaining_seconds is not None:
                parts.append((f"{duration(self._remaining_seconds)} left", 2))
            spent = Spent(
                seconds=row.train_seconds or 0.0,
                data_seconds=row.data_seconds or 0.0,
                network_seconds=row.network_seconds or 0.0,
            )
            parts.append((spent.waits, 4))
        if row.num_bn_images:
            parts.append((f"BatchNorm: {row.num_bn_images:,} images", 1))
        self._screen.say_line(parts)
        if row.num_bad_images:
            self.say(f"{row.num_bad_images} unreadable image(s) left out so far")
        if row.num_skipped_steps:
            self.say(f"{row.num_skipped_steps} step(s) skipped so far")

    def _show_progress(self, event: Progress) -> None:
        self._remaining_seconds = event.remaining_seconds
        screen, parts = self._screen, _progress(event)
        is_late = time.monotonic() - screen.last_line >= _PLAIN_PROGRESS_SECONDS
        is_due = self.config.output.print_freq is None and is_late and not screen.is_terminal
        if event.is_printed or is_due:
            screen.say_line(parts)
        screen.show_live(lambda: one_line(fitting(parts, screen.line_width)))


def _progress(event: Progress) -> list[tuple[str, int]]:
    """Return the parts of the progress line, each with its rank: see :func:`fitting`."""
    spent = Spent(seconds=1.0, data_seconds=event.data_share)
    return [
        ("float" if event.stage == 0 else f"stage {event.stage}/{event.num_stages}", 0),
        (f"portion {event.portion:g}", 6),
        (f"epoch {event.epoch}/{event.epochs}", 1),
        (f"step {event.step}/{event.steps}", 2),
        (f"loss {event.loss:.4f}", 4),
        (f"{event.images_per_second:,.0f} images/s", 5),
        (f"{duration(event.remaining_seconds)} left", 0),
        (spent.waits, 3),
    ]


def _headline(config: RunConfig) -> str:
    what = "plain training" if config.plain else _bits(config)
    workers = f"{config.cluster.num_workers} {'GPU' if config.cluster.use_gpu else 'CPU'} worker(s)"
    batch = f"global batch {config.training.batch_size}"
    return f"inq_ray {__version__}: {config.network.arch} on {config.data.data}, {what}, {workers}, {batch}"


def _bits(config: RunConfig) -> str:
    """Return the bits of a run, and the kind of codebooks if they are not the paper's."""
    quantization = config.quantization
    levels = f", {quantization.levels} levels" if quantization.levels != "paper" else ""
    per = f", a codebook per {quantization.codebook_per}" if quantization.codebook_per != "tensor" else ""
    layers = f" ({shown(' '.join(quantization.layer_bits), 60)})" if quantization.layer_bits else ""
    return f"{quantization.weight_bits} bits{layers}{levels}{per}"


def _percent(counts: Plan | Started) -> str:
    """Return the fraction of the network that is quantized, such as "99.1 %"."""
    return f"{100 * counts.num_quantized / max(1, counts.num_parameters):.1f} %"


def _started(event: Started) -> str:
    return (
        f"{event.num_quantized:,} of {event.num_parameters:,} parameters ({_percent(event)}) are quantized; "
        f"{event.num_train:,} training and {event.num_validation:,} validation images; "
        f"{event.world_size} worker(s) on {event.device}, {event.precision}"
    )


def _layer_table(layers: Sequence[LayerRow]) -> Table:
    table = Table("parameter", "module", "shape", "values", "bits")
    for row in layers:
        shape = "x".join(map(str, row.shape)) or "1"
        bits = str(row.bits) if row.bits else f"float ({row.why_float})"
        table.add_row(row.name, row.module, shape, f"{row.num_values:,}", bits)
    table.add_section()
    for group in sums(layers):
        bits = f"{group.bits} bits" if group.bits else f"float ({group.why_float})"
        table.add_row(counted(group.num_tensors, "tensor"), "", "", f"{group.num_values:,}", bits)
    return table


def _stage_table(summary: dict[str, Any], float_top1: float | None) -> Table:
    table = Table("stage", "portion", "top-1 quantized", "top-1 re-trained", "against float")
    if float_top1 is not None:
        table.add_row("float", "0", "", f"{float_top1:.2f}", "")
    for stage in summary["stages"]:
        change = "" if float_top1 is None else f"{stage['top1'] - float_top1:+.2f}"
        table.add_row(
            str(stage["stage"]),
            f"{stage['portion']:g}",
            f"{stage['top1_quantized']:.2f}",
            f"{stage['top1']:.2f}",
            change,
        )
    mean = f" ({summary['mean_bits']:.2f} on average)" if summary["layer_bits"] else ""
    bits = f"{summary['weight_bits']} bits{mean}"
    table.title = f"{summary['arch']} at {bits}, top-1 in % on the {summary['measured_on']}"
    return table


def _measured_on(config: RunConfig) -> str:
    return "held-out training images" if config.data.holdout else "the test set"


def _events(events: dict[str, Any]) -> str:
    counts = ", ".join(f"{kind.replace('_', ' ')} {count}x" for kind, count in events["counts"].items())
    return f"{counts}; {duration(events['seconds_lost'])} lost"


def _spent(spent: dict[str, Any]) -> str:
    names = ("seconds", "data_seconds", "network_seconds")
    return str(Spent(**{name: spent[name] for name in names}))
