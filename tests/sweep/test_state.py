"""A sweep's state that was edited, or damaged, ends in one line; what is accepted goes on."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from inq_ray.sweep.folder import FORMAT_VERSION
from inq_ray.sweep.plan import SweepPlan, plan_sweep
from inq_ray.sweep.space.axes import Choices
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.sweep.space.space import LR, SCHEDULE, Space
from inq_ray.sweep.trials.ranking import best_of, effects, pareto, savings
from inq_ray.sweep.trials.report import Begun, Done, End, Ended
from inq_ray.training.evaluation.accuracy import Accuracy
from tests.training.runs import needs_digits, tiny_config

pytestmark = needs_digits

SPACE = Space({SCHEDULE: Choices(((0.5, 1.0), (0.5, 0.75, 1.0))), LR: Choices((0.01, 0.02))})
VALUES = (
    None, True, -1, 0, 7, 10**30, 10**400, 0.5, float("nan"), float("inf"), "", "x", "a\x1b[31m\nb", "9" * 5000, [], {},
    [[]], {"": 1}, ["ask", 0], ["tell", 3, [1.0], False],
)  # fmt: skip


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> SweepPlan:
    plan = plan_sweep(tiny_config(tmp_path_factory.mktemp("sweep")), SPACE, SearchOptions())
    plan.folder.path.mkdir()
    return plan


def state_of(plan: SweepPlan) -> dict[str, Any]:
    registry = plan.registry()
    trial = registry.next(4)
    assert trial is not None
    end = End(stage=0, portion=0.0, top1=90.0, seconds=1.0, how="trained")
    for report in (Begun(ends=()), Ended(end), Done(top1=95.0, digest="ab" * 32)):
        registry.take(trial.name, report)
    registry.next(4)
    test = {"num_samples": 9, "num_top1": 8, "num_top5": 9, "loss": 0.1}
    state: dict[str, Any] = json.loads(
        json.dumps(plan.state(registry, best=trial.name, savings={}, test=test, tested=trial.name))
    )
    return {"format_version": FORMAT_VERSION, **state}


def use(plan: SweepPlan, state: Any) -> None:
    """Do with a state all that a sweep that goes on does with it."""
    plan.folder.state.write_text(json.dumps(state))
    read = plan.folder.read()
    assert read is not None
    registry = plan.registry(read)
    str(read["origin"]["numerics"])
    if read.get("tested") is not None:
        str(Accuracy(**read["test"]).top1)
    best_of(registry.trials), effects(registry.trials), pareto(registry.trials), savings(registry.trials)
    plan.folder.write_table(registry.trials)
    json.dumps(plan.state(registry))
    for _ in range(3):
        registry.next(4)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the way to each value within a JSON value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from paths_of(inner, (*path, key))


def mutated(state: dict[str, Any], path: tuple[Any, ...], value: Any, *, is_deleted: bool) -> dict[str, Any]:
    state = copy.deepcopy(state)
    inner: Any = state
    for key in path[:-1]:
        inner = inner[key]
    if is_deleted:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return state


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("trials", 0, "digest"), "DELETE", r"trials\[0\]\.digest is missing"),
        (("trials", 0, "number"), [], r"trials\[0\]\.number must be a whole number, got \[\]"),
        (("log",), None, r"log must be a list, got None"),
        (("log",), [], r"trials\[0\]\.number is 0, but 0 points were proposed"),
        (("log", 0), ["ask", 1], r"log\[0\] is \['ask', 1\], which is not possible"),
        (("trials", 0, "top1"), "x", r"trials\[0\]\.top1 must be a number or null, got 'x'"),
        (("trials", 0, "status"), "running", r"trials\[0\]\.top1 is 95\.0, but the trial is running"),
        (("trials", 0, "ends", 0, "seconds"), None, r"trials\[0\]\.ends\[0\]\.seconds must be a number, got None"),
        (("trials", 1, "name"), "t001", r"trials: name is the same in two of them"),
        (("base", "training", "lr"), -1, r"base\.training\.lr|--lr must be"),
        (("test",), None, r"tested names a trial, and test is not its accuracy"),
    ],
)
def test_the_place_is_named(plan: SweepPlan, path: tuple[Any, ...], value: Any, says: str) -> None:
    state = mutated(state_of(plan), path, value, is_deleted=value == "DELETE")
    with pytest.raises(ValueError, match=rf"sweep\.json is damaged: ({says}).*: repair it, or delete the sweep with"):
        use(plan, state)


def test_mutated_states_end_in_one_line(plan: SweepPlan) -> None:
    state = state_of(plan)
    use(plan, state)
    draw = random.Random(0)
    paths = list(paths_of(state))
    cases = [(path, None, True) for path in paths] + [
        (draw.choice(paths), draw.choice(VALUES), False) for _ in range(800)
    ]
    num_refused = 0
    for path, value, is_deleted in cases:
        try:
            use(plan, mutated(state, path, value, is_deleted=is_deleted))
        except ValueError as error:
            num_refused += 1
            line = str(error)
            assert line.isprintable(), (path, value, line)
            assert len(line) <= 300, (path, value, line)
            assert str(plan.folder.state) in line or "--name" in line or "cannot continue" in line, (path, value, line)
    assert num_refused > len(cases) / 2
