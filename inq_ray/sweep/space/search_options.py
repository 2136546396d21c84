"""Search options of a sweep: frozen values, checked on construction."""

from dataclasses import dataclass
from typing import Any, Literal

from inq_ray.training.config import RunConfig
from inq_ray.training.config.checks import between, count
from inq_ray.training.config.option import Affects, Unused, check_options, check_refused, option

Search = Literal["grid", "random", "optuna"]
Objective = Literal["top1", "top1-bits"]
Stopping = Literal["none", "asha", "median"]


def _unless(when: Any, why: str) -> tuple[Unused, ...]:
    """Return the case that an option is refused unless a condition holds."""
    return (Unused(when=lambda search: not when(search), why=f"has no effect: {why}", is_refused=True),)


_DRAWS = _unless(lambda search: search.search != "grid", "grid tries all combinations; add --search random or optuna")
_STOPS = _unless(lambda search: search.stopping != "none", "no trial is stopped; add --stopping asha or median")
_OPTUNA = _unless(lambda search: search.search == "optuna", "only optuna has an objective; add --search optuna")
_ASHA = _unless(lambda search: search.stopping == "asha", "it is for asha only; add --stopping asha")


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Search options."""

    search: Search = option(
        "grid", "Search method: grid tries all; random draws --trials; optuna proposes --trials by TPE.", is_first=True
    )
    trials: int = option(
        20, "Number of trials, for random and optuna.", check=count(1, 100_000), unused=_DRAWS, is_first=True
    )
    search_seed: int = option(0, "Random seed, for random and optuna.", check=between(f"[0, {2**32})"), unused=_DRAWS)
    objective: Objective = option("top1", "Objective of optuna: accuracy, or accuracy and few bits.", unused=_OPTUNA)
    stopping: Stopping = option(
        "none",
        "Early stopping: asha keeps the best trials at each portion, median those that are not below the median.",
        is_first=True,
    )
    reduction: float = option(
        2.0,
        "Reduction factor of asha: one in N trials continues, compared where 1/N, 1/N², ... of the weights are live.",
        check=between("(1, inf)"),
        unused=_ASHA,
    )
    grace_portion: float = option(
        0.5, "Portion before which no trial is stopped, 0 to 1.", check=between("[0, 1]"), unused=_STOPS
    )
    reuse: bool = option(True, "Train stages that trials share only once.")
    retries: int = option(1, "Number of retries of a failed trial.", check=count(0), affects=Affects.NOTHING)
    max_concurrent: int | None = option(
        None,
        "Maximum number of concurrent trials; default: as many as fit into the cluster.",
        check=count(1),
        affects=Affects.NOTHING,
    )
    workers_per_trial: int | None = option(
        None, "Workers per trial; another name for --num-workers.", check=count(1), affects=Affects.NOTHING
    )
    gpus_per_trial: int | None = option(
        None,
        "GPUs per trial, one per worker; another name for --num-workers with --use-gpu.",
        check=count(1),
        affects=Affects.NOTHING,
    )

    def __post_init__(self) -> None:
        check_options(self)
        check_refused(self)

    def workers(self, config: RunConfig) -> RunConfig:
        """Return the configuration with --workers-per-trial and --gpus-per-trial applied.

        Raises:
            ValueError: They contradict each other.
        """
        given = {each for each in (self.workers_per_trial, self.gpus_per_trial) if each is not None}
        if len(given) > 1:
            raise ValueError(
                f"--workers-per-trial {self.workers_per_trial} and --gpus-per-trial {self.gpus_per_trial} differ: each "
                "worker has one GPU"
            )
        if not given:
            return config
        use_gpu = config.cluster.use_gpu or self.gpus_per_trial is not None
        return config.replace(cluster={"num_workers": given.pop(), "use_gpu": use_gpu})
