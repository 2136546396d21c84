"""Ray Tune asks the registry of a sweep: what to start next, and whether a trial goes on.

The registry decides, and none of Tune's own searchers and schedulers, because those know no stages: which trial comes
next follows from what trials share, and trials compare at the same portion, see
:mod:`inq_ray.sweep.trials.early_stopping`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from inq_ray.cluster.tune.trial import REPORT
from inq_ray.sweep.trials.report import Report

# The arguments of a trial; None = none can start now, "FINISHED" = there is none left.
Suggest = Callable[[], dict[str, Any] | str | None]


class RegistrySearcher(Searcher):
    """A searcher of Tune.

    Args:
        suggest: of what to start.
        fail: takes the name of a trial that has failed for good, or ended without a result.
    """

    def __init__(self, suggest: Suggest, fail: Callable[[str], None]) -> None:
        super().__init__()
        self._suggest = suggest
        self._fail = fail
        self._names: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        """The arguments of the next trial."""
        suggested = self._suggest()
        if isinstance(suggested, dict):
            self._names[trial_id] = suggested["name"]
        return suggested

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
        """A trial has ended; the registry knows how, unless it failed."""
        self._fail(self._names[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Tune keeps searchers of its own this way; the sweep's own file is what it goes on with."""
        Path(checkpoint_path).write_text("{}\n", encoding="utf-8")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles what it is given; nobody reads that

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is ever read back by Tune."""
        raise AssertionError(checkpoint_path)


class RegistryScheduler(FIFOScheduler):
    """A scheduler of Tune.

    Args:
        take: takes the name of a trial and what it reports. A trial that is to stop is told so, and ends by itself: see
            :func:`inq_ray.cluster.tune.trial.run_trial`.
    """

    def __init__(self, take: Callable[[str, Report], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._take = take

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as above

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Goes on, as far as Tune is concerned."""
        self._take(trial.config["name"], result[REPORT])
        return str(TrialScheduler.CONTINUE)
