"""Search schedules and learning rates from Python: which is best at 3 bits, on the demo's handwritten digits?

    python examples/sweep_as_library.py
    python examples/sweep_as_library.py --output results

Trials that begin with the same stages train those once. The same call goes on with a sweep that was interrupted.
"""

import argparse
from pathlib import Path

from ray import tune

from inq_ray.cluster.tune.sweep import SweepResult, search
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.training.config.recipes import default_recipe


def sweep(output: Path) -> SweepResult:
    """Run four trials: two schedules with two learning rates each."""
    base = default_recipe("digits_cnn", 3).replace(
        training={"float_epochs": 5, "epochs": 1},
        cluster={"num_workers": 1},
        output={"storage_path": str(output), "name": "sweep"},
    )
    space = {
        "quantization.iterative_steps": tune.grid_search([(0.5, 0.75, 1.0), (0.5, 0.8, 1.0)]),
        "training.lr": tune.grid_search([0.01, 0.05]),
    }
    return search(base, space, SearchOptions(search="grid"))


def main() -> None:
    """Run the sweep, and print the best trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder for the sweep; default: runs")
    result = sweep(parser.parse_args().output)
    best = result.best
    if best is None:
        raise SystemExit("no trial came to its end")
    print(f"best of {len(result.trials)}: {best.name}, {best.point}")
    print(f"top-1 {best.top1:.2f} % on held-out images; its configuration is in best.json of the sweep's folder")


if __name__ == "__main__":
    main()
