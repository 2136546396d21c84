"""How a sweep searches: frozen values, checked when made."""

from dataclasses import dataclass
from typing import Any, Literal

from inq_ray.training.config import RunConfig
from inq_ray.training.config.checks import between, count
from inq_ray.training.config.option import Affects, Unused, check_options, check_refused, option

Search = Literal["grid", "random", "optuna"]
Objective = Literal["top1", "top1-bits"]
Stopping = Literal["none", "asha", "median"]


def _unless(when: Any, why: str) -> tuple[Unused, ...]:
    """The option is refused unless this is so."""
    return (Unused(when=lambda search: not when(search), why=f"has no effect: {why}", is_refused=True),)


_DRAWS = _unless(lambda search: search.search != "grid", "grid tries all combinations; add --search random or optuna")
_STOPS = _unless(lambda search: search.stopping != "none", "no trial is stopped; add --stopping asha or median")
_OPTUNA = _unless(lambda search: search.search == "optuna", "only optuna has one; add --search optuna")
_ASHA = _unless(lambda search: search.stopping == "asha", "it belongs to asha; add --stopping asha")


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How it is searched."""

    search: Search = option(
        "grid", "grid: try all; random: draw --trials of them; optuna: Optuna's TPE proposes them.", is_first=True
    )
    trials: int = option(20, "Trials of random and optuna.", check=count(1, 100_000), unused=_DRAWS, is_first=True)
    search_seed: int = option(0, "Random seed of random and optuna.", check=between(f"[0, {2**32})"), unused=_DRAWS)
    objective: Objective = option("top1", "What optuna looks for: accuracy, or accuracy and few bits.", unused=_OPTUNA)
    stopping: Stopping = option(
        "none",
        "Early stopping: asha keeps the best of those that came to a portion, median those not below the median.",
        is_first=True,
    )
    reduction: float = option(
        2.0,
        "With asha, one of so many goes on; it compares where 1/2, 1/4, 1/8 (for 2) of the weights are live.",
        check=between("(1, inf)"),
        unused=_ASHA,
    )
    grace_portion: float = option(
        0.5, "Portion before which no trial is stopped.", check=between("[0, 1]"), unused=_STOPS
    )
    reuse: bool = option(True, "Train stages that trials share once.")
    retries: int = option(1, "Times that a failed trial is started again.", check=count(0), affects=Affects.NOTHING)
    max_concurrent: int | None = option(
        None,
        "Trials at the same time; by default as many as the cluster has room for.",
        check=count(1),
        affects=Affects.NOTHING,
    )
    workers_per_trial: int | None = option(
        None, "Processes of a trial; another name for --num-workers.", check=count(1), affects=Affects.NOTHING
    )
    gpus_per_trial: int | None = option(
        None,
        "GPUs of a trial, one for each of its workers; another name for --num-workers and --use-gpu.",
        check=count(1),
        affects=Affects.NOTHING,
    )

    def __post_init__(self) -> None:
        check_options(self)
        check_refused(self)

    def workers(self, config: RunConfig) -> RunConfig:
        """The configuration with --workers-per-trial and --gpus-per-trial.

        Raises:
            ValueError: they contradict each other, or ask for nothing.
        """
        given = {each for each in (self.workers_per_trial, self.gpus_per_trial) if each is not None}
        if len(given) > 1:
            raise ValueError(
                f"--workers-per-trial {self.workers_per_trial} and --gpus-per-trial {self.gpus_per_trial} differ: a "
                "worker has one GPU"
            )
        if not given:
            return config
        use_gpu = config.cluster.use_gpu or self.gpus_per_trial is not None
        return config.replace(cluster={"num_workers": given.pop(), "use_gpu": use_gpu})
