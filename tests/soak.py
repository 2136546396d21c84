"""Rounds of random faults against runs of the demo's size, on Ray; each has to end with the calm run's digest.

make soak                                  until it is interrupted
make soak ARGS="--rounds 100 --seed 1"     so many rounds, from this seed on
make soak ARGS="--minutes 30"              for about so long
make soak ARGS="--rounds 1 --seed 17"      round 17 again
"""

import argparse
import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from inq_ray.cluster.connection import connected
from inq_ray.cluster.trainer import quantize
from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.report.events import SilentReporter
from inq_ray.training.run_folder import RunFolder
from tests.faults import Planned, draw, places_of, quantize_under
from tests.training.runs import read_rows

# Of a summary, what faults must not change.
SAME = ("digest", "float_top1", "stages", "top1", "top5", "num_bad_images", "num_skipped_steps", "verification")


def config_of(storage: Path, name: str, *, seed: int | None = None) -> RunConfig:
    """The demo; with a seed, how often it takes a checkpoint is drawn too."""
    every = ["3", "7", "20", "1s", "10m"][(seed or 0) % 5]
    return default_recipe("digits_cnn", 5).replace(
        cluster={"max_failures": 20, "collective_timeout": "10s"},
        output={"storage_path": str(storage), "name": name, "checkpoint_every": every},
    )


def check_round(storage: Path, seed: int, calm: dict[str, Any], plan: list[Planned] | None = None) -> dict[str, Any]:
    """Runs one round; returns its summary.

    Raises:
        AssertionError: it ended otherwise than the calm run, or left something behind.
    """
    config = config_of(storage, f"round-{seed}", seed=seed)
    if plan is None:
        plan = draw(seed, list(places_of(config)))
    summary, texts = quantize_under(config, plan)
    different = [name for name in SAME if summary[name] != calm[name]]
    assert not different, f"round {seed}, {plan}: {different} differ from the calm run; told: {texts}"
    folder = RunFolder.planned(config)
    rows, expected = read_rows(folder), read_rows(RunFolder(folder.path.with_name("calm")))
    assert rows == expected, f"round {seed}, {plan}: other metrics than the calm run's: {rows}; told: {texts}"
    left = [*folder.path.glob(".*"), *(folder.path / "checkpoints").glob(".*")]
    assert not left, f"round {seed}, {plan}: left behind {left}"
    return summary


def main(arguments: list[str]) -> int:
    """Runs rounds; returns 1 if one of them ended badly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="how many; without it and --minutes there is no end")
    parser.add_argument("--minutes", type=float, help="begin no round after so long")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the next has the next number")
    options = parser.parse_args(arguments)
    began, counts, lost, num_bad, num_rounds = time.monotonic(), Counter[str](), 0.0, 0, 0
    with contextlib.ExitStack() as stack:
        storage = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inq_soak_")))
        calm_config = config_of(storage, "calm")
        stack.enter_context(connected(calm_config.cluster, verbose=False))
        calm = quantize(calm_config, SilentReporter())
        print(f"calm: digest {calm['digest']}", flush=True)
        for seed in itertools.count(options.seed):
            minutes = (time.monotonic() - began) / 60
            if num_rounds == options.rounds or (options.minutes is not None and minutes > options.minutes):
                break
            plan, round_began = draw(seed, list(places_of(calm_config))), time.monotonic()
            struck = ", ".join(f"{each.fault} at {each.stage}.{each.epoch}" for each in plan)
            try:
                summary = check_round(storage, seed, calm, plan)
            except Exception as error:  # noqa: BLE001, a round that ends badly is counted, and the next one begins
                num_bad += 1
                print(f"seed {seed}: BAD: {type(error).__name__}: {error}", flush=True)
            else:
                counts.update(summary["events"]["counts"])
                lost += summary["events"]["seconds_lost"]
                events = json.dumps(summary["events"]["counts"])
                print(f"seed {seed}: same; {struck}; {events}; {time.monotonic() - round_began:.0f} s", flush=True)
            num_rounds += 1
    minutes = (time.monotonic() - began) / 60
    print(f"{num_rounds} rounds in {minutes:.0f} minutes, {num_bad} bad; {dict(counts)}; {lost:.0f} seconds lost")
    return 1 if num_bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
