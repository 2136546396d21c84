"""Console output of a sweep: a live table on a terminal, plain lines elsewhere, tables at the end."""

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import get_args

from rich.table import Table

from inq_ray.files.shown import counted
from inq_ray.sweep.incidents import FromTrial
from inq_ray.sweep.plan import SweepPlan
from inq_ray.sweep.space.schedules import as_text, bar
from inq_ray.sweep.space.space import SCHEDULE
from inq_ray.sweep.trials.ranking import Effect, effects, pareto, ranked, savings
from inq_ray.sweep.trials.report import Begun, Done, Ended, Failed, Refused, Report, Stored, TrialRetryable
from inq_ray.sweep.trials.trial import Status, Trial, has_bits, in_words, short
from inq_ray.sweep.waiting import TrialWaits
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.report.events import Note, Progress, Waiting
from inq_ray.training.report.incident import Incident
from inq_ray.training.report.screen import Screen, duration


class SweepConsole:
    """Prints a sweep: lines about trials are permanent, the table of running trials is live on a terminal.

    Attributes:
        waiting: What trials wait for.
    """

    def __init__(self) -> None:
        self._screen = Screen()
        self._lock = threading.Lock()
        self._progress: dict[str, tuple[Progress, float]] = {}
        self._waiting: dict[str, str] = {}
        self._trials: list[Trial] = []
        self.waiting = TrialWaits(self.say)

    def say(self, line: str) -> None:
        """Print a permanent line."""
        self._screen.say(line)

    def wait_for(self, what: str) -> None:
        """Show what the sweep waits for, and since when, until a trial starts."""
        self._screen.wait_for(what)

    def close(self) -> None:
        """End the live table."""
        self._screen.close()

    def start(self, plan: SweepPlan, trials: Sequence[Trial], num_slots: int) -> None:
        """Print what begins or continues."""
        base = plan.base
        self._trials = list(trials)
        num_over = sum(trial.is_over for trial in trials)
        by_optuna = plan.options.search == "optuna"
        what = f"{counted(plan.options.trials, 'trial')} by Optuna" if by_optuna else counted(len(trials), "trial")
        self.say(
            f"{what} of {base.network.arch} on {base.data.data}, {num_slots} at a time of "
            f"{base.cluster.workers.most} worker(s) each; accuracy on {base.data.holdout:,} held-out training images"
        )
        if num_over:
            self.say(f"continuing: {num_over} of them are finished")

    def started(self, trial: Trial, trials: Sequence[Trial]) -> None:
        """Report that a trial starts."""
        self._trials = list(trials)
        what = f"{bar(trial.schedule)} {as_text(trial.schedule)}  {_parameters(trial)}"
        self.say(f"{trial.name}  starts    {what.rstrip()}")
        self.waiting.begin(trial.name, "its process: Ray starts it once the cluster has room")
        self._refresh()

    def told(self, trial: Trial, report: Report) -> None:
        """Print a trial's report, after the registry has handled it."""
        if isinstance(report, Begun):
            self.waiting.begin(trial.name, "its first step: its workers start, and load network and images")
        else:
            self.waiting.end(trial.name)
        line = _line(trial, report)
        if line is not None:
            self.say(f"{trial.name}  {line}")
        self._refresh()

    def report(self, event: object) -> None:
        """Print an event of a trial's run."""
        match event:
            case FromTrial(name, Progress() as progress):
                self.waiting.end(name)
                with self._lock:
                    self._progress[name] = (progress, time.monotonic())
                    self._waiting.pop(name, None)
                self._refresh()
            case FromTrial(name, Waiting(text)):
                with self._lock:
                    self._waiting[name] = text
                self._refresh()
            case FromTrial(_, Incident(kind="resumed")):
                pass  # the loss that caused it has a line of its own
            case FromTrial(name, Note(text) | Incident(text=text)):
                self.say(f"{name}  {text}")

    def _refresh(self) -> None:
        self._screen.show_live(self._live_table)

    def _live_table(self) -> Table:
        with self._lock:
            return _live_table(self._trials, self._progress, self._waiting)

    def show_plan(self, plan: SweepPlan, trials: Sequence[Trial]) -> None:
        """Print the trials and what they share."""
        names = _searched(trials)
        table = Table("trial", "schedule", "", *map(short, names), "stages", "shared")
        seen: set[str] = set()
        for trial in trials:
            shared = seen.intersection(trial.chain)
            seen.update(trial.chain)
            table.add_row(*_cells(trial, names), str(_num_stages(trial)), str(len(shared)))
        self._screen.show_table(table)
        if plan.options.search == "optuna":
            self.say(f"Optuna proposes {counted(plan.options.trials, 'trial')}, each based on earlier results")
        total = sum(map(_num_stages, trials))
        if trials:
            distinct = total - sum(len(trial.chain) for trial in trials) + len(seen)
            self.say(
                f"{counted(total, 'stage')}, {distinct} of them distinct: {100 * distinct / total:.0f} % need training"
            )
        self.say(f"accuracy is measured on {plan.base.data.holdout:,} held-out images of {plan.info.num_train:,}")
        self.say("dry run: nothing was started or written")

    def show_result(self, trials: Sequence[Trial], test: Accuracy | None, num_classes: int, seconds: float) -> None:
        """Print ranking, effects, Pareto front, and the savings of reuse."""
        self.close()
        self._screen.show_table(_ranking(trials))
        for trial in trials:
            if trial.reason is not None:
                self.say(f"{trial.name}  {trial.status}: {trial.reason}")
        if found := effects(trials):
            self._screen.show_table(_effect_table(found))
        result = self._screen.say_result
        if has_bits(trial.point for trial in trials):
            front = ", ".join(f"{trial.bits} bits {trial.top1:.2f} % ({trial.name})" for trial in pareto(trials))
            result("Pareto", front)
        saved = savings(trials)
        result(
            "stages",
            f"trained {saved.num_trained}, reused {saved.num_reused}; time saved {duration(saved.saved_seconds)}, "
            f"time of training {duration(saved.trained_seconds)}; this start took {duration(seconds)}",
        )
        if test is not None:
            result("test set", f"{test.in_words(num_classes)}, for the best")

    def show_best(self, trial: Trial, command: str, recipe: str) -> None:
        """Print how to run the best configuration again."""
        result = self._screen.say_result
        result("best", f"{trial.name}, digest {trial.digest}")
        result("command", command, is_whole=True)
        result("recipe", f"{recipe} (--config)", is_whole=True)


def _live_table(
    trials: Sequence[Trial], progress: Mapping[str, tuple[Progress, float]], waiting: Mapping[str, str]
) -> Table:
    """Return a table of the running trials, with counts as its caption."""
    counts = Counter(trial.status for trial in trials)
    table = Table("trial", "schedule", "parameters", "stage", "portion", "epoch", "top-1", "left", expand=False)
    for trial in trials:
        if trial.status != "running":
            continue
        top1 = f"{trial.ends[-1].top1:.2f}" if trial.ends else ""
        where, left = [waiting.get(trial.name, ""), "", ""], ""
        if trial.name in progress and trial.name not in waiting:
            event, seen = progress[trial.name]
            where = [f"{event.stage}/{event.num_stages}", f"{event.portion:g}", f"{event.epoch}/{event.epochs}"]
            left = duration(max(0.0, event.remaining_seconds - (time.monotonic() - seen)))
        table.add_row(trial.name, bar(trial.schedule), _parameters(trial), *where, top1, left)
    table.caption = ", ".join(f"{counts[status]} {status}" for status in get_args(Status) if counts[status])
    return table


def _ranking(trials: Sequence[Trial]) -> Table:
    names = _searched(trials)
    table = Table("", "trial", "schedule", "", *map(short, names), "top-1", "stages reused", "status")
    for number, trial in enumerate(ranked(trials), start=1):
        is_done = trial.top1 is not None
        reached = f"({trial.ends[-1].top1:.2f} at {trial.ends[-1].portion:g})" if trial.ends else ""
        num_reused = trial.count("reused")
        table.add_row(
            str(number) if is_done else "",
            *_cells(trial, names),
            f"{trial.top1:.2f}" if is_done else reached,
            f"{num_reused} of {num_reused + trial.count('trained')}",
            trial.status,
        )
    table.title = "top-1 in % on held-out training images"
    return table


def _effect_table(found: Sequence[Effect]) -> Table:
    table = Table("parameter", "value", "trials", "mean top-1", "best", title="effect (others differ too)")
    for effect in found:
        is_schedule = effect.parameter == short(SCHEDULE)
        bars = f"{bar([float(part) for part in effect.value.split(',')])} " if is_schedule else ""
        figures = (str(effect.num_trials), f"{effect.mean:.2f}", f"{effect.best:.2f}")
        table.add_row(effect.parameter, bars + effect.value, *figures)
    return table


def _line(trial: Trial, report: Report) -> str | None:
    match report:
        case Begun(ends=ends, damaged=damaged):
            reused = [end for end in ends if end.how == "reused"]
            parts = [f"{len(damaged)} damaged stage end(s) ignored"] if damaged else []
            if reused:
                parts.append(f"reuses    {len(reused)} stage(s), to portion {reused[-1].portion:g}: saves "
                             f"{duration(sum(end.seconds for end in reused))}")  # fmt: skip
            return "; ".join(parts) or None
        case Ended(end):
            line = f"stage {end.stage}/{len(trial.schedule)} portion {end.portion:<6g} top-1 {end.top1:6.2f}"
            return f"{line}  stopped: {trial.reason}" if trial.status == "stopped" else line
        case Stored(key, reason):
            stage = next((stage for stage, each in trial.keys.items() if each == key), "?")
            return None if reason is None else f"the end of stage {stage} is not stored: {reason}"
        case Done():
            return f"done      top-1 {report.top1:.2f}  digest {report.digest[:16]}"
        case Failed(reason) | Refused(reason):
            return f"failed    {reason}"
        case TrialRetryable(reason):
            return f"failed    {reason}; will be retried if --retries allows"


def _parameters(trial: Trial) -> str:
    return "  ".join(f"{short(name)} {in_words(value)}" for name, value in trial.point.items() if name != SCHEDULE)


def _searched(trials: Sequence[Trial]) -> list[str]:
    """Return dotted names of the parameters that differ between trials, except schedules; columns of a table."""
    return list(dict.fromkeys(name for trial in trials for name in trial.point if name != SCHEDULE))


def _cells(trial: Trial, names: Sequence[str]) -> list[str]:
    """Return the first cells of a trial's row: its name, its schedule, and its searched values."""
    values = [in_words(trial.point[name]) if name in trial.point else "" for name in names]
    return [trial.name, bar(trial.schedule), as_text(trial.schedule), *values]


def _num_stages(trial: Trial) -> int:
    return len(trial.schedule) + (1 if trial.config.float_epochs else 0)
