"""How a sweep searches: frozen values, checked when made."""

from dataclasses import dataclass, fields
from typing import Literal, get_origin

from inq_ray.sweep.trials.early_stopping import Stopping
from inq_ray.training.config import RunConfig
from inq_ray.training.config.checks import check_at_least, check_choice

Search = Literal["grid", "random", "optuna"]
Objective = Literal["top1", "top1-bits"]


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How it is searched."""

    search: Search = "grid"
    """grid tries all, random draws --trials of them, optuna lets Optuna's TPE propose them."""
    trials: int = 20
    """Trials of random and optuna."""
    search_seed: int = 0
    """Of random and optuna."""
    objective: Objective = "top1"
    """What optuna looks for: accuracy, or accuracy and few bits."""
    stopping: Stopping = "none"
    """Stop trials early: asha keeps the best of those that came to a portion, median those not below the median."""
    reduction: float = 2.0
    """With asha, one of so many goes on; it compares where 1/2, 1/4, 1/8 (for 2) of the weights are live."""
    grace_portion: float = 0.5
    """No trial is stopped before this portion."""
    reuse: bool = True
    """Train stages that trials share once."""
    retries: int = 1
    """Times that a trial that failed is started again."""
    max_concurrent: int | None = None
    """Trials at the same time; by default as many as the cluster has room for."""
    workers_per_trial: int | None = None
    """Processes of a trial; another name for --num-workers."""
    gpus_per_trial: int | None = None
    """GPUs of a trial, one for each of its workers; another name for --num-workers and --use-gpu."""

    def __post_init__(self) -> None:
        for field in fields(self):
            flag, value = flag_of(field.name), getattr(self, field.name)
            if get_origin(field.type) is Literal:
                check_choice(flag, value, field.type)
            elif field.type in (int, int | None) and value is not None:
                check_at_least(flag, value, 0 if field.name in ("retries", "search_seed") else 1)
        if self.search_seed >= 2**32:
            raise ValueError(f"--search-seed must be below 2^32, got {self.search_seed}")
        if not self.reduction > 1:
            raise ValueError(f"--reduction must be above 1, got {self.reduction}")
        if not 0 <= self.grace_portion <= 1:
            raise ValueError(f"--grace-portion must be in [0, 1], got {self.grace_portion}")
        self._check_effects()

    def _check_effects(self) -> None:
        """Refuses an option that has no effect: who gives it expects something else."""
        effects = {
            "trials": (self.search != "grid", "grid tries all combinations: add --search random or optuna"),
            "search_seed": (self.search != "grid", "grid draws nothing: add --search random or optuna"),
            "objective": (self.search == "optuna", f"--search {self.search} looks for none: add --search optuna"),
            "reduction": (self.stopping == "asha", "it is asha's: add --stopping asha"),
            "grace_portion": (self.stopping != "none", "no trial is stopped: add --stopping asha or median"),
        }
        for field in fields(self):
            has_effect, why = effects.get(field.name, (True, ""))
            value = getattr(self, field.name)
            if not has_effect and value != field.default:
                raise ValueError(f"{flag_of(field.name)} {value} plays no part, {why}")

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


def flag_of(name: str) -> str:
    """Return the flag of a field, by its name or dotted name: "training.batch_size" is --batch-size."""
    return f"--{name.rpartition('.')[2].replace('_', '-')}"
