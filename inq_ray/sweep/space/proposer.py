"""Proposers: points from a list, or from Optuna."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from inq_ray.files.extra import install_command
from inq_ray.sweep.space.axes import RandomDrawer
from inq_ray.sweep.space.search_options import Objective, SearchOptions
from inq_ray.sweep.space.space import Point, Space, point_key

# A space counts as exhausted after this many draws in a row without a new point.
_MOST_REPEATED = 200


class Proposer(Protocol):
    """Proposes points.

    Attributes:
        is_known: Whether proposals do not depend on results.
    """

    is_known: bool

    @property
    def is_exhausted(self) -> bool:
        """Return whether there are no more points."""
        ...

    def ask(self) -> Point | None:
        """Return the next point; None = there are no more."""
        ...

    def tell(self, number: int, values: Sequence[float] | None, *, failed: bool = False) -> None:
        """Handle the result of a point.

        Args:
            number: Index of the point, in the order of proposals, from 0.
            values: Objectives; None if the trial was stopped early or failed.
            failed: Whether it failed.
        """
        ...


class ListProposer:
    """Points from a list."""

    is_known = True

    def __init__(self, points: Sequence[Point]) -> None:
        self._points = list(points)
        self._next = 0

    @property
    def is_exhausted(self) -> bool:
        """Return whether the list is exhausted."""
        return self._next == len(self._points)

    def ask(self) -> Point | None:
        """Return the next point of the list."""
        if self.is_exhausted:
            return None
        self._next += 1
        return self._points[self._next - 1]

    def tell(self, number: int, values: Sequence[float] | None, *, failed: bool = False) -> None:
        """Ignore the result."""


class OptunaProposer:
    """Points from Optuna's TPE, for one or several objectives; the same results give the same points.

    Args:
        space: Search space.
        num_trials: Number of points.
        seed: Seed of the sampler.
        objective: "top1" maximizes accuracy; "top1-bits" also minimizes bits.

    Raises:
        ValueError: Optuna is not installed.
    """

    is_known = False

    def __init__(self, space: Space, num_trials: int, seed: int, objective: Objective) -> None:
        try:
            import optuna
        except ModuleNotFoundError:
            command = install_command("sweep", "optuna")
            raise ValueError(f"--search optuna needs Optuna, which is not installed: {command}") from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        directions: list[Literal["maximize", "minimize"]]
        directions = ["maximize"] if objective == "top1" else ["maximize", "minimize"]
        self._study = optuna.create_study(directions=directions, sampler=optuna.samplers.TPESampler(seed=seed))
        self._space = space
        self._num_trials = num_trials
        self._trials: list[Any] = []

    @property
    def is_exhausted(self) -> bool:
        """Return whether all points were proposed."""
        return len(self._trials) == self._num_trials

    def ask(self) -> Point | None:
        """Return Optuna's next point."""
        if self.is_exhausted:
            return None
        trial = self._study.ask()
        self._trials.append(trial)
        return self._space.draw(_OptunaDrawer(trial))

    def tell(self, number: int, values: Sequence[float] | None, *, failed: bool = False) -> None:
        """Pass the result to Optuna, whose next points depend on it."""
        from optuna.trial import TrialState

        if values is not None:
            self._study.tell(self._trials[number], list(values))
        else:
            self._study.tell(self._trials[number], state=TrialState.FAIL if failed else TrialState.PRUNED)


class _OptunaDrawer:
    def __init__(self, trial: Any) -> None:
        self._trial = trial

    def index(self, name: str, count: int) -> int:
        return int(self._trial.suggest_categorical(name, list(range(count))))

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        return float(self._trial.suggest_float(name, low, high, log=log))


def make_proposer(space: Space, options: SearchOptions) -> Proposer:
    """Return the proposer of a sweep.

    Args:
        space: Search space.
        options: Search options.

    Raises:
        ValueError: A grid has a range, or Optuna is not installed.
    """
    if options.search == "grid":
        return ListProposer(list(space.grid()))
    if options.search == "random":
        return ListProposer(_distinct(space, options.trials, options.search_seed))
    return OptunaProposer(space, options.trials, options.search_seed, options.objective)


def _distinct(space: Space, count: int, seed: int) -> list[Point]:
    """Return distinct points drawn at random; fewer if the space has no more."""
    drawer = RandomDrawer(seed)
    points: dict[str, Point] = {}
    repeated = 0
    while len(points) < count and repeated < _MOST_REPEATED:
        point = space.draw(drawer)
        repeated = repeated + 1 if point_key(point) in points else 0
        points.setdefault(point_key(point), point)
    return list(points.values())
