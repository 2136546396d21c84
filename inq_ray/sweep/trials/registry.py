"""The state of a sweep: which trials there are, what they have come to, and which comes next.

Nothing here starts or reads anything: whoever runs trials calls :meth:`TrialRegistry.next` and
:meth:`TrialRegistry.take`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inq_ray.files.shown import quoted
from inq_ray.sweep.reuse.shared_prefixes import choose, missing, needed
from inq_ray.sweep.space.proposer import Proposer
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.sweep.space.space import Point, point_key
from inq_ray.sweep.trials.early_stopping import Rungs, is_below_median
from inq_ray.sweep.trials.report import Begun, Done, End, Ended, Failed, Refused, Report, Stored, TrialRetryable
from inq_ray.sweep.trials.trial import Trial, objectives
from inq_ray.training.config import RunConfig

# What trials are called: t001, t002, ...
TRIAL = re.compile(r"t\d{3,}")
# Ends that are kept for points which are not known yet.
_MOST_KEPT = 16


class TrialRegistry:
    """All trials of a sweep.

    Args:
        proposer: of points.
        options: how trials are stopped.
        configured: a trial's configuration, by its name and point.
        keys: of a configuration's stage ends, see :func:`~inq_ray.sweep.reuse.keys.stage_keys`; none where nothing is
            reused.
        stored: keys of the ends that exist.

    Attributes:
        trials: in the order in which they were asked for.
        stored: keys of the ends that exist.
        log: what was asked from and told to the proposer, in order.
    """

    def __init__(
        self,
        proposer: Proposer,
        options: SearchOptions,
        *,
        configured: Callable[[str, Point], RunConfig],
        keys: Callable[[RunConfig], Mapping[int, str]],
        stored: set[str],
    ) -> None:
        self.trials: list[Trial] = []
        self.stored = stored
        self.log: list[list[Any]] = []
        self._proposer = proposer
        self._options = options
        self._configured = configured
        self._keys = keys
        self._has_bits = options.objective == "top1-bits"
        self._rungs = Rungs(options.reduction, options.grace_portion)
        self._num_asked = 0
        self._told: set[int] = set()
        self._not_stored: set[str] = set()
        self._kept: list[str] = []

    @property
    def is_over(self) -> bool:
        """Whether all trials are, and there are no others."""
        return self._proposer.is_exhausted and all(trial.is_over for trial in self.trials)

    @property
    def running(self) -> list[Trial]:
        """The trials that run."""
        return [trial for trial in self.trials if trial.status == "running"]

    @property
    def waiting(self) -> list[Trial]:
        """The trials that have not started."""
        return [trial for trial in self.trials if trial.status == "waiting"]

    def of(self, name: str) -> Trial:
        """The trial of a name."""
        return next(trial for trial in self.trials if trial.name == name)

    def plan(self) -> None:
        """Asks for all points, where they are known beforehand: only then the order can follow from what is shared."""
        while self._proposer.is_known and not self._proposer.is_exhausted:
            self._ask()

    def next(self, num_slots: int) -> Trial | None:
        """The trial that is to be started now; None = none can, or all places are taken.

        Args:
            num_slots: how many may run at once.
        """
        if len(self.running) >= num_slots:
            return None
        self.plan()
        while (trial := self._choose()) is None and len(self.waiting) < num_slots and not self._proposer.is_exhausted:
            self._ask()
        if trial is None:
            return None
        trial.status, trial.has_begun = "running", False
        trial.first_keys = trial.keys if trial.first_keys is None else trial.first_keys
        trial.claims = set(missing(trial.chain, self.stored))
        return trial

    def starts_of(self, trial: Trial) -> dict[int, str]:
        """The stored ends from which a trial could begin by stage, the deepest first."""
        found = {stage: key for stage, key in trial.keys.items() if key in self.stored}
        return dict(sorted(found.items(), reverse=True))

    def wanted_of(self, trial: Trial) -> set[str]:
        """The keys of a trial's ends that are worth storing: those that others could begin with."""
        if not self._proposer.is_known:
            return set(trial.keys.values())
        others = {key for other in self.trials if not other.is_over and other is not trial for key in other.chain}
        return others & set(trial.chain)

    def take(self, name: str, report: Report) -> bool:
        """Takes what a trial reports.

        Returns:
            Whether the trial goes on.
        """
        trial = self.of(name)
        if trial.is_over:
            return False
        match report:
            case Begun():
                self._begin(trial, report)
            case Ended(end):
                if trial.pass_end(end) and not self._stays(trial):
                    self._stop(trial, end)
                    return False
            case Stored(key, reason):
                self._note_stored(key, reason)
            case Done():
                trial.status, trial.top1, trial.digest, trial.reason = "done", report.top1, report.digest, None
                self._close(trial)
            case TrialRetryable(reason):
                trial.reason = reason
            case Failed(reason) | Refused(reason):
                self._fail(trial, reason)
                return False
        return True

    def fail(self, name: str, reason: str) -> None:
        """A trial has ended without a result, for good; why it stumbled, if it did, says more than ``reason``."""
        trial = self.of(name)
        if not trial.is_over:
            self._fail(trial, trial.reason or reason)

    def interrupt(self) -> None:
        """Nothing runs any more: what did waits to go on."""
        for trial in self.running:
            trial.status = "waiting"
            trial.claims = set()

    def unneeded(self) -> set[str]:
        """Keys of stored ends with which no trial will begin; forgets them: the caller deletes them."""
        open_trials = [trial.chain for trial in self.trials if self._may_begin(trial)]
        keep = needed(open_trials, self.stored)
        if not self._proposer.is_known and not self._proposer.is_exhausted:
            keep |= set(self._kept[-_MOST_KEPT:]) & self.stored
        gone = self.stored - keep
        self.stored -= gone
        return gone

    def restore(self, log: Sequence[Sequence[Any]], trials: Sequence[Mapping[str, Any]]) -> None:
        """Takes up a sweep that was ended: the same is asked and told again, and so the same is proposed.

        Args:
            log: of the former sweep.
            trials: of it, as :meth:`inq_ray.sweep.trials.trial.Trial.to_json` gave them.

        Raises:
            ValueError: the proposer gives other points than it did.
        """
        assert not self.trials
        known = {values["number"]: values for values in trials}
        for what, number, *rest in log:
            if what == "tell":
                self._tell(number, *rest)
                continue
            point = self._proposer.ask()
            self._num_asked += 1
            self.log.append(["ask", number])
            values = known.get(number)
            if values is None:
                continue  # a point that was a trial already
            if point is None or point_key(point) != point_key(values["point"]):
                raise ValueError(
                    f"the sweep cannot go on: {values['name']} was {quoted(values['point'], 80)}, and now the search "
                    f"proposes {quoted(point, 80)}; take another --name"
                )
            trial = self._add(values["name"], number, point)
            trial.remember(values)
            for index, end in enumerate(trial.ends, start=1):
                self._pass_rungs(trial, trial.ends[:index])
                if (key := trial.keys.get(end.stage)) in self.stored:
                    self._kept.append(key)

    def to_json(self) -> dict[str, Any]:
        """What :meth:`restore` takes."""
        return {"log": self.log, "trials": [trial.to_json() for trial in self.trials]}

    def _ask(self) -> None:
        point = self._proposer.ask()
        assert point is not None, "there are others"
        number, self._num_asked = self._num_asked, self._num_asked + 1
        self.log.append(["ask", number])
        twin = next((trial for trial in self.trials if point_key(trial.point) == point_key(point)), None)
        if twin is None:
            self._add(f"t{len(self.trials) + 1:03}", number, point)
            return
        # It would end with the same bits: nothing is run, and its result is told where it is known.
        values = objectives(twin, has_bits=self._has_bits)
        self._tell(number, values, values is None)

    def _add(self, name: str, number: int, point: Point) -> Trial:
        config = self._configured(name, point)
        trial = Trial(name=name, number=number, point=point, config=config, keys=self._keys(config))
        self.trials.append(trial)
        return trial

    def _tell(self, number: int, values: Sequence[float] | None, failed: bool) -> None:
        if number in self._told:
            return  # it failed, was told so, and ran again when the sweep went on
        self._told.add(number)
        self.log.append(["tell", number, values, failed])
        self._proposer.tell(number, values, failed=failed)

    def _choose(self) -> Trial | None:
        """The waiting trial to start: an interrupted one first, so that a resumed sweep keeps the order it had."""
        claimed = {key for trial in self.running for key in trial.claims} - self.stored - self._not_stored
        interrupted = [trial for trial in self.waiting if trial.first_keys is not None]
        for trials in (interrupted, self.waiting):
            index = choose([trial.chain for trial in trials], self.stored, claimed)
            if index is not None:
                return trials[index]
        return None

    def _begin(self, trial: Trial, report: Begun) -> None:
        trial.has_begun, trial.reason = True, None  # what it stumbled over lies behind it
        self.stored -= set(report.damaged)
        trial.claims = set(missing(trial.chain, self.stored)) if report.damaged else trial.claims
        for end in report.ends:
            if trial.pass_end(end):
                self._pass_rungs(trial, [each for each in trial.ends if each.stage <= end.stage])

    def _stays(self, trial: Trial) -> bool:
        """Whether a trial goes on after its last end; one that is done but for its result does in any case."""
        end = trial.ends[-1]
        goes_on = self._pass_rungs(trial, trial.ends)
        if end.stage == len(trial.schedule):
            return True
        if self._options.stopping == "median":
            others = {each.name: each.curve for each in self.trials if each is not trial and each.bits == trial.bits}
            return not is_below_median(trial.curve, others, self._options.grace_portion)
        return goes_on or self._options.stopping != "asha"

    def _pass_rungs(self, trial: Trial, ends: Sequence[End]) -> bool:
        curve = [(end.portion, end.top1) for end in ends]
        stage = ends[-1].stage
        return self._rungs.goes_on(trial.keys.get(stage, f"{trial.name} {stage}"), trial.bits, curve)

    def _stop(self, trial: Trial, end: End) -> None:
        """Stops a trial, and all that would have gone on from the same end."""
        trial.status = "stopped"
        trial.reason = f"{end.top1:.2f} % at portion {end.portion:g} ({self._options.stopping})"
        self._close(trial)
        key = trial.keys.get(end.stage)
        for other in self.waiting:
            if key is not None and key in other.chain:
                other.status, other.reason = "stopped", f"shares stage {end.stage} with {trial.name}, which was stopped"
                self._close(other)

    def _fail(self, trial: Trial, reason: str) -> None:
        trial.status, trial.reason = "failed", reason
        self._close(trial)

    def _close(self, trial: Trial) -> None:
        trial.claims = set()
        self._tell(trial.number, objectives(trial, has_bits=self._has_bits), trial.status == "failed")

    def _note_stored(self, key: str, reason: str | None) -> None:
        if reason is not None:
            self._not_stored.add(key)
            return
        self.stored.add(key)
        self._not_stored.discard(key)
        self._kept.append(key)

    def _may_begin(self, trial: Trial) -> bool:
        return trial.status == "waiting" or (trial.status == "running" and not trial.has_begun)
