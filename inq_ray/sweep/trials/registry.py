"""State of a sweep: its trials, their progress, and which starts next.

Nothing here starts or reads anything; the caller runs trials and calls :meth:`TrialRegistry.next` and
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

# Names of trials: t001, t002, ...
TRIAL = re.compile(r"t\d{3,}")
# Number of ends to keep for points that are not known yet.
_MOST_KEPT = 16


class TrialRegistry:
    """All trials of a sweep.

    Args:
        proposer: Proposer of points.
        options: Search options, with those for early stopping.
        configured: Returns a trial's configuration, by its name and point.
        keys: Returns the keys of a configuration's stage ends, see :func:`~inq_ray.sweep.reuse.keys.stage_keys`; empty
            without reuse.
        stored: Keys of the existing ends.

    Attributes:
        trials: Trials in the order of proposals.
        stored: Keys of the existing ends.
        log: Requests to the proposer and results passed to it, in order.
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
        self._by_point: dict[str, Trial] = {}
        self._told: set[int] = set()
        self._not_stored: set[str] = set()
        self._kept: list[str] = []

    @property
    def is_over(self) -> bool:
        """Return whether all trials are finished, and no more are proposed."""
        return self._proposer.is_exhausted and all(trial.is_over for trial in self.trials)

    @property
    def running(self) -> list[Trial]:
        """Return the running trials."""
        return [trial for trial in self.trials if trial.status == "running"]

    @property
    def waiting(self) -> list[Trial]:
        """Return the trials that have not started."""
        return [trial for trial in self.trials if trial.status == "waiting"]

    def of(self, name: str) -> Trial:
        """Return the trial with a name."""
        return next(trial for trial in self.trials if trial.name == name)

    def plan(self) -> None:
        """Request all points, if they are known: only then can the order take shared stages into account."""
        while self._proposer.is_known and not self._proposer.is_exhausted:
            self._ask()

    def next(self, num_slots: int) -> Trial | None:
        """Return the trial to start now; None = none can start, or all slots are in use.

        Args:
            num_slots: Maximum number of concurrent trials.
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
        """Return the stored ends that a trial could start from by stage, the deepest first."""
        found = {stage: key for stage, key in trial.keys.items() if key in self.stored}
        return dict(sorted(found.items(), reverse=True))

    def wanted_of(self, trial: Trial) -> set[str]:
        """Return the keys of a trial's ends that are worth storing: others could start from them."""
        if not self._proposer.is_known:
            return set(trial.keys.values())
        others = {key for other in self.trials if not other.is_over and other is not trial for key in other.chain}
        return others & set(trial.chain)

    def take(self, name: str, report: Report) -> bool:
        """Handle a trial's report.

        Returns:
            Whether the trial continues.
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
        """Record that a trial ended without a result, permanently; an earlier failure's reason replaces ``reason``."""
        trial = self.of(name)
        if not trial.is_over:
            self._fail(trial, trial.reason or reason)

    def interrupt(self) -> None:
        """Record that nothing runs any more; running trials wait to be continued."""
        for trial in self.running:
            trial.status = "waiting"
            trial.claims = set()

    def unneeded(self) -> set[str]:
        """Return the keys of stored ends that no trial will start from, and forget them: the caller deletes them."""
        open_trials = [trial.chain for trial in self.trials if self._may_begin(trial)]
        keep = needed(open_trials, self.stored)
        if not self._proposer.is_known and not self._proposer.is_exhausted:
            keep |= set(self._kept[-_MOST_KEPT:]) & self.stored
        gone = self.stored - keep
        self.stored -= gone
        return gone

    def restore(self, log: Sequence[Sequence[Any]], trials: Sequence[Mapping[str, Any]]) -> None:
        """Continue an earlier sweep: replaying its log gives the same proposals.

        Args:
            log: Log of the earlier sweep.
            trials: Its trials, from :meth:`inq_ray.sweep.trials.trial.Trial.to_json`.

        Raises:
            ValueError: The proposer gives other points than before.
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
                continue  # a point that already was a trial
            if point is None or point_key(point) != point_key(values["point"]):
                raise ValueError(
                    f"the sweep cannot continue: {values['name']} was {quoted(values['point'], 80)}, but now the "
                    f"search proposes {quoted(point, 80)}; use another --name"
                )
            trial = self._add(values["name"], number, point)
            trial.remember(values)
            for index, end in enumerate(trial.ends, start=1):
                self._pass_rungs(trial, trial.ends[:index])
                if (key := trial.keys.get(end.stage)) in self.stored:
                    self._kept.append(key)

    def to_json(self) -> dict[str, Any]:
        """Return the argument of :meth:`restore`."""
        return {"log": self.log, "trials": [trial.to_json() for trial in self.trials]}

    def _ask(self) -> None:
        point = self._proposer.ask()
        assert point is not None, "there are more points"
        number, self._num_asked = self._num_asked, self._num_asked + 1
        self.log.append(["ask", number])
        twin = self._by_point.get(point_key(point))
        if twin is None:
            self._add(f"t{len(self.trials) + 1:03}", number, point)
            return
        # It would end with the same bits: nothing is run, and the known result is passed on.
        values = objectives(twin, has_bits=self._has_bits)
        self._tell(number, values, values is None)

    def _add(self, name: str, number: int, point: Point) -> Trial:
        config = self._configured(name, point)
        trial = Trial(name=name, number=number, point=point, config=config, keys=self._keys(config))
        self.trials.append(trial)
        self._by_point[point_key(point)] = trial
        return trial

    def _tell(self, number: int, values: Sequence[float] | None, failed: bool) -> None:
        if number in self._told:
            return  # it failed, which was passed on, and ran again when the sweep continued
        self._told.add(number)
        self.log.append(["tell", number, values, failed])
        self._proposer.tell(number, values, failed=failed)

    def _choose(self) -> Trial | None:
        """Return the waiting trial to start: an interrupted one first, so that a resumed sweep keeps its order."""
        claimed = {key for trial in self.running for key in trial.claims} - self.stored - self._not_stored
        interrupted = [trial for trial in self.waiting if trial.first_keys is not None]
        for trials in (interrupted, self.waiting):
            index = choose([trial.chain for trial in trials], self.stored, claimed)
            if index is not None:
                return trials[index]
        return None

    def _begin(self, trial: Trial, report: Begun) -> None:
        trial.has_begun, trial.reason = True, None  # an earlier failure no longer matters
        self.stored -= set(report.damaged)
        trial.claims = set(missing(trial.chain, self.stored)) if report.damaged else trial.claims
        for end in report.ends:
            if trial.pass_end(end):
                self._pass_rungs(trial, [each for each in trial.ends if each.stage <= end.stage])

    def _stays(self, trial: Trial) -> bool:
        """Return whether a trial continues after its last end; always if only its result is missing."""
        end = trial.ends[-1]
        goes_on = self._pass_rungs(trial, trial.ends)
        if end.stage == len(trial.schedule):
            return True
        if self._options.stopping == "median":
            others = {
                each.name: each.curve for each in self.trials if each is not trial and each.all_bits == trial.all_bits
            }
            return not is_below_median(trial.curve, others, self._options.grace_portion)
        return goes_on or self._options.stopping != "asha"

    def _pass_rungs(self, trial: Trial, ends: Sequence[End]) -> bool:
        curve = [(end.portion, end.top1) for end in ends]
        stage = ends[-1].stage
        return self._rungs.goes_on(trial.keys.get(stage, f"{trial.name} {stage}"), trial.all_bits, curve)

    def _stop(self, trial: Trial, end: End) -> None:
        """Stop a trial, and all that would have continued from the same end."""
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
