"""Savings of reusing stages: a sweep of eight schedules with and without reuse, on one cluster, in turns.

The schedules share prefixes: 17 of their 35 stages are distinct, and 1 of 8 trainings before the first stage. The ideal
is that fraction of the training time, by the seconds that each stage took without reuse; starting a trial (a process,
its workers) costs the same in both cases. Digests must be the same in both.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from inq_ray.cluster.connection import connected
from inq_ray.cluster.tune.sweep import SweepResult, run_sweep
from inq_ray.sweep.console import SweepConsole
from inq_ray.sweep.plan import plan_sweep
from inq_ray.sweep.space.axes import Choices
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.sweep.space.space import SCHEDULE, Space
from inq_ray.sweep.trials.ranking import savings
from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe

SCHEDULES = (
    (0.3, 0.5, 0.7, 0.8, 1.0), (0.3, 0.5, 0.7, 0.85, 1.0), (0.3, 0.5, 0.7, 0.9, 1.0), (0.3, 0.5, 0.7, 1.0),
    (0.3, 0.5, 0.8, 0.9, 1.0), (0.3, 0.5, 0.8, 1.0), (0.3, 0.5, 0.9, 1.0), (0.3, 0.5, 1.0),
)  # fmt: skip


def sweep(base: RunConfig, name: str, *, reuse: bool) -> tuple[float, SweepResult]:
    """Return the seconds of a whole sweep, and its result."""
    plan = plan_sweep(
        base.replace(output={"name": name}),
        Space({SCHEDULE: Choices(SCHEDULES)}),
        SearchOptions(reuse=reuse, max_concurrent=1),
    )
    began = time.perf_counter()
    result = run_sweep(plan, SweepConsole())
    return time.perf_counter() - began, result


def ideal_seconds(alone: SweepResult, reusing: SweepResult) -> float:
    """Return the seconds of training if each distinct stage were trained once, at its speed without reuse."""
    how = {(trial.name, end.stage): end.how for trial in reusing.trials for end in trial.ends}
    ends = [(trial.name, end) for trial in alone.trials for end in trial.ends]
    return sum(end.seconds for name, end in ends if how[name, end.stage] == "trained")


def main() -> None:
    """Measure with one worker of one thread at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=150, help="epochs of re-training per stage")
    parser.add_argument("--float-epochs", type=int, default=12, help="epochs of training before the first stage")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the figures")
    flags = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-sweep-") as folder:
        base = default_recipe("digits_cnn", 5).replace(
            training={"epochs": flags.epochs, "float_epochs": flags.float_epochs},
            cluster={"num_workers": 1},
            output={"storage_path": folder},
        )
        with connected(base.cluster, verbose=False):
            for number in range(flags.rounds):
                with_seconds, reusing = sweep(base, f"reusing-{number}", reuse=True)
                without_seconds, alone = sweep(base, f"alone-{number}", reuse=False)
                assert [t.digest for t in reusing.trials] == [t.digest for t in alone.trials], "reuse changes bits"
                saved, trained = savings(reusing.trials), savings(alone.trials).trained_seconds
                rounds.append(
                    {
                        "with_seconds": with_seconds,
                        "without_seconds": without_seconds,
                        "ratio": with_seconds / without_seconds,
                        "stages_trained": saved.num_trained,
                        "stages_reused": saved.num_reused,
                        "ideal_by_stages": saved.ideal,
                        "ideal_by_seconds": ideal_seconds(alone, reusing) / trained,
                        "training_ratio": saved.trained_seconds / trained,
                    }
                )
    for figures in rounds:
        print("  ".join(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
                        for name, value in figures.items()))  # fmt: skip
    if flags.json is not None:
        flags.json.write_text(json.dumps(rounds, indent=2) + "\n")


if __name__ == "__main__":
    main()
