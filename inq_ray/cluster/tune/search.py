"""Searcher and scheduler of Ray Tune, which ask the sweep's registry what to start next, and whether a trial continues.

The registry decides instead of Tune's own searchers and schedulers, because those do not know stages: the next trial
depends on what trials share, and trials are compared at the same portion, see
:mod:`inq_ray.sweep.trials.early_stopping`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from inq_ray.cluster.tune.trial import REPORT
from inq_ray.sweep.trials.report import Report

# Arguments of a trial; None = none can start now, "FINISHED" = there are no more.
Suggest = Callable[[], dict[str, Any] | str | None]


class RegistrySearcher(Searcher):
    """A searcher of Tune.

    Args:
        suggest: Returns the next trial to start.
        fail: Called with the name of a trial that has failed permanently, or ended without a result.
    """

    def __init__(self, suggest: Suggest, fail: Callable[[str], None]) -> None:
        super().__init__()
        self._suggest = suggest
        self._fail = fail
        self._names: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        """Return the arguments of the next trial."""
        suggested = self._suggest()
        if isinstance(suggested, dict):
            self._names[trial_id] = suggested["name"]
        return suggested

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
        """Handle the end of a trial; the registry knows its result, unless it failed."""
        self._fail(self._names[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: Tune saves searchers this way, but a sweep continues from its own file."""
        Path(checkpoint_path).write_text("{}\n", encoding="utf-8")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searchers; nothing reads the result

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: Tune never reads anything back."""
        raise AssertionError(checkpoint_path)


class RegistryScheduler(FIFOScheduler):
    """A scheduler of Tune.

    Args:
        take: Called with the name of a trial and its report. A trial that is to stop learns it from a file, and ends
            itself: see :func:`inq_ray.cluster.tune.trial.run_trial`.
    """

    def __init__(self, take: Callable[[str, Report], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._take = take

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as above

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Return Tune's decision, which is always to continue."""
        self._take(trial.config["name"], result[REPORT])
        return str(TrialScheduler.CONTINUE)
