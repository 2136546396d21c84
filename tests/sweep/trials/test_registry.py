"""Whole sweeps without a run: trials whose accuracy is made up, of any schedules, at any concurrency."""

import json
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inq_ray.sweep.reuse.keys import Origin, stage_keys
from inq_ray.sweep.space.axes import Choices, Range
from inq_ray.sweep.space.proposer import ListProposer, make_proposer
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.sweep.space.space import BITS, LR, SCHEDULE, Point, Space, configured
from inq_ray.sweep.trials.registry import TrialRegistry
from inq_ray.sweep.trials.report import Begun, Done, End, Ended, Failed, Stored, TrialRetryable
from inq_ray.sweep.trials.trial import Trial
from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe

ORIGIN = Origin(weights="w", teacher="", code="", fingerprint="f", numerics="n")
BASE = default_recipe("digits_cnn", 5)
SCHEDULES = [
    (0.5, 0.75, 0.875, 1.0), (0.5, 0.75, 0.9, 1.0), (0.5, 0.75, 1.0), (0.3, 0.6, 0.8, 1.0), (0.5, 1.0), (1.0,),
]  # fmt: skip
SPACE = Space({SCHEDULE: Choices(tuple(SCHEDULES)), BITS: Choices((5, 3))})


def named(name: str, point: Point) -> RunConfig:
    return configured(BASE, point).replace(output={"name": name})


@cache
def keys_of(config: RunConfig) -> Mapping[int, str]:
    return stage_keys(config, ORIGIN)


def registry_of(space: Space, options: SearchOptions, stored: set[str] | None = None) -> TrialRegistry:
    return TrialRegistry(
        make_proposer(space, options),
        options,
        configured=named,
        keys=keys_of if options.reuse else lambda _: {},
        stored=set() if stored is None else stored,
    )


def accuracy(trial: Trial, stage: int) -> float:
    """A function of what decides the stage's end, as it is of a real one."""
    decides = (trial.bits, trial.point.get(LR), trial.schedule[:stage]) if stage else "float"
    return 50 + 50 * (zlib.crc32(repr(decides).encode()) % 997) / 997


def first_of(count: int) -> int:
    assert count > 0
    return 0


class Simulation:
    """Runs trials a stage at a time, in any order."""

    def __init__(self, registry: TrialRegistry, draw: Callable[[int], int], num_slots: int) -> None:
        self.registry = registry
        self.draw = draw
        self.num_slots = num_slots
        self.left: dict[str, list[int]] = {}
        self.trained: list[str] = []
        self.most_stored = 0
        self.failing: set[str] = set()

    def run(self, num_steps: int | None = None) -> None:
        done = 0
        while not self.registry.is_over and done != num_steps:
            done += 1
            trial = self.registry.next(self.num_slots)
            if trial is not None:
                self.start(trial)
                continue
            assert self.left or self.registry.is_over, "something waits, nothing runs, and nothing can start"
            if self.left:
                self.go_on(sorted(self.left)[self.draw(len(self.left))])
            self.registry.unneeded()
            self.most_stored = max(self.most_stored, len(self.registry.stored))
            assert json.loads(json.dumps(self.registry.to_json()))

    def start(self, trial: Trial) -> None:
        stages = list(range(len(trial.schedule) + 1))
        last = next(iter(self.registry.starts_of(trial)), -1)
        assert not trial.claims & self.registry.stored
        known = [end.stage for end in trial.ends]
        last = max([last, *known])
        ends = tuple(self.end(trial, stage, "reused") for stage in stages if stage <= last)
        self.registry.take(trial.name, Begun(ends=ends))
        self.left[trial.name] = [stage for stage in stages if stage > last]

    def go_on(self, name: str) -> None:
        trial, stages = self.registry.of(name), self.left[name]
        if name in self.failing:
            del self.left[name]
            assert not self.registry.take(name, Failed("it fails"))
        elif not stages:
            del self.left[name]
            self.registry.take(name, Done(top1=accuracy(trial, len(trial.schedule)), digest="d"))
        else:
            stage = stages.pop(0)
            self.trained.append(trial.keys.get(stage, name))
            goes_on = self.registry.take(name, Ended(self.end(trial, stage, "trained")))
            if not goes_on:
                del self.left[name]
            elif trial.keys.get(stage) in self.registry.wanted_of(trial):
                self.registry.take(name, Stored(trial.keys[stage]))

    def end(self, trial: Trial, stage: int, how: str) -> End:
        portion = trial.schedule[stage - 1] if stage else 0.0
        return End(stage=stage, portion=portion, top1=accuracy(trial, stage), seconds=1.0, how=how)  # type: ignore[arg-type]


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(list(SPACE.grid())), min_size=1, max_size=8, unique_by=str), st.integers(1, 4), st.data()
)
def test_a_grid_trains_each_stage_once_and_keeps_none(points: list[Point], num_slots: int, data: st.DataObject) -> None:
    registry = TrialRegistry(ListProposer(points), SearchOptions(), configured=named, keys=keys_of, stored=set())
    simulation = Simulation(registry, lambda count: data.draw(st.integers(0, count - 1)), num_slots)
    simulation.run()
    shared = {key for trial in registry.trials for key in trial.chain}
    assert sorted(simulation.trained) == sorted([*shared, *(trial.name for trial in registry.trials)])
    assert {trial.status for trial in registry.trials} == {"done"}
    assert registry.stored == set()
    counts = [(trial.count("trained"), trial.count("reused"), len(trial.schedule) + 1) for trial in registry.trials]
    assert all(trained + reused == stages for trained, reused, stages in counts)
    assert sum(trained for trained, _, _ in counts) == len(simulation.trained)


def test_without_reuse_every_stage_is_trained() -> None:
    registry = registry_of(SPACE, SearchOptions(reuse=False))
    simulation = Simulation(registry, first_of, 3)
    simulation.run()
    assert len(simulation.trained) == sum(len(trial.schedule) + 1 for trial in registry.trials)
    assert all(trial.count("reused") == 0 for trial in registry.trials)


@settings(max_examples=25)
@given(st.integers(1, 4), st.data())
def test_a_stopped_end_stops_all_that_go_on_from_it(num_slots: int, data: st.DataObject) -> None:
    registry = registry_of(SPACE, SearchOptions(stopping="asha", grace_portion=0.0))
    simulation = Simulation(registry, lambda count: data.draw(st.integers(0, count - 1)), num_slots)
    simulation.run()
    stopped = [trial for trial in registry.trials if trial.status == "stopped"]
    assert [trial for trial in registry.trials if trial.status == "done"]
    for trial in stopped:
        assert trial.reason
        if trial.ends:
            key = trial.keys.get(trial.ends[-1].stage)
            alike = [other for other in registry.trials if key is not None and key in other.chain]
            if trial.ends[-1].how == "trained":
                assert not [other for other in alike if other.status == "waiting"]
        else:
            assert "shares stage" in trial.reason
            assert trial.top1 is None


def test_asha_and_median_stop_some_and_the_best_of_a_rung_never() -> None:
    for stopping in ("asha", "median"):
        registry = registry_of(SPACE, SearchOptions(stopping=stopping, grace_portion=0.5))  # type: ignore[arg-type]
        Simulation(registry, first_of, 1).run()
        statuses = [trial.status for trial in registry.trials]
        assert "stopped" in statuses, stopping
        assert statuses.count("done") >= 2
        for trial in registry.trials:
            if trial.status == "stopped" and trial.ends:
                assert trial.ends[-1].portion >= 0.5


def test_a_failed_trial_ends_nothing_and_others_train_what_it_had_claimed() -> None:
    registry = registry_of(SPACE, SearchOptions())
    simulation = Simulation(registry, first_of, 2)
    first = registry.next(2)
    assert first is not None
    simulation.failing.add(first.name)
    simulation.start(first)
    simulation.run()
    assert [trial.name for trial in registry.trials if trial.status == "failed"] == [first.name]
    assert first.reason == "it fails"
    assert {trial.status for trial in registry.trials if trial is not first} == {"done"}
    assert len(set(simulation.trained)) == len(simulation.trained)


def test_a_trial_that_stumbled_and_then_fails_says_why_it_has_failed() -> None:
    registry = registry_of(SPACE, SearchOptions())
    trial = registry.next(1)
    assert trial is not None
    for report in (Begun(ends=()), TrialRetryable("the disk is full"), Failed("it diverges")):
        registry.take(trial.name, report)
    assert (trial.status, trial.reason) == ("failed", "it diverges")


def test_a_process_that_ends_without_a_result_has_failed_by_what_it_stumbled_over() -> None:
    for reports, reason in (
        ([Begun(ends=()), TrialRetryable("the disk is full")], "the disk is full"),
        (
            [Begun(ends=()), TrialRetryable("the disk is full"), Begun(ends=())],
            "its process ended",
        ),  # started again, killed
        ([], "its process ended"),
    ):
        registry = registry_of(SPACE, SearchOptions())
        trial = registry.next(1)
        assert trial is not None
        for report in reports:
            registry.take(trial.name, report)
        registry.fail(trial.name, "its process ended")
        assert (trial.status, trial.reason) == ("failed", reason)


def test_an_end_that_could_not_be_stored_holds_nobody_back() -> None:
    registry = registry_of(Space({SCHEDULE: Choices(((0.5, 0.75, 1.0), (0.5, 1.0)))}), SearchOptions())
    first = registry.next(2)
    assert first is not None
    assert registry.next(2) is None  # both need stage 0, which one is training
    registry.take(first.name, Begun(ends=()))
    registry.take(first.name, Stored(first.keys[0], "the disk is full"))
    second = registry.next(2)
    assert second is not None
    assert registry.starts_of(second) == {}


def test_a_damaged_end_is_trained_again() -> None:
    registry = registry_of(Space({SCHEDULE: Choices(((0.5, 0.75, 1.0), (0.5, 1.0)))}), SearchOptions())
    registry.plan()
    keys = registry.trials[0].keys
    registry.stored |= {keys[0], keys[1]}
    trial = registry.next(1)
    assert trial is not None
    assert list(registry.starts_of(trial)) == [1, 0]
    registry.take(trial.name, Begun(ends=(), damaged=(keys[1], keys[0])))
    assert registry.stored == set()
    assert {keys[0], keys[1]} <= trial.claims


OPTIONS = [
    SearchOptions(search="grid"),
    SearchOptions(search="random", trials=6, search_seed=3),
    SearchOptions(search="optuna", trials=9, search_seed=1),
    SearchOptions(search="optuna", trials=9, search_seed=1, objective="top1-bits", stopping="asha"),
]
SPACES = [SPACE, Space({SCHEDULE: Choices(tuple(SCHEDULES[:2])), LR: Range(0.001, 0.1), BITS: Choices((5, 4, 3))})]


@pytest.mark.parametrize("options", OPTIONS, ids=["grid", "random", "optuna", "optuna of two objectives"])
@settings(max_examples=5)
@given(st.integers(0, 60), st.sampled_from(SPACES))
def test_a_sweep_that_was_killed_goes_on_as_it_would_have(options: SearchOptions, num_steps: int, space: Space) -> None:
    """One trial at a time, so that one order of events is what would have been."""
    space = SPACE if options.search == "grid" else space  # the other one has a range
    calm = registry_of(space, options)
    Simulation(calm, first_of, 1).run()
    killed = registry_of(space, options)
    Simulation(killed, first_of, 1).run(num_steps)
    saved = json.loads(json.dumps(killed.to_json()))
    again = registry_of(space, options, set(killed.stored))
    again.restore(saved["log"], saved["trials"])
    Simulation(again, first_of, 1).run()
    assert [(t.name, t.point, t.status, t.top1, t.curve) for t in again.trials] == [
        (t.name, t.point, t.status, t.top1, t.curve) for t in calm.trials
    ]
    assert again.log == calm.log


def test_a_trial_that_was_interrupted_goes_on_before_any_other_starts() -> None:
    """Though it needs a stage less by now, and more trials wait for the stages of another one."""
    registry = registry_of(SPACE, SearchOptions())
    simulation = Simulation(registry, first_of, 1)
    first = registry.next(1)
    assert first is not None
    simulation.start(first)
    for _ in range(2):
        simulation.go_on(first.name)
    registry.unneeded()
    saved = json.loads(json.dumps(registry.to_json()))
    again = registry_of(SPACE, SearchOptions(), set(registry.stored))
    again.restore(saved["log"], saved["trials"])
    trial = again.next(1)
    assert trial is not None
    assert trial.name == first.name


def test_an_interrupted_search_keeps_the_ends_from_which_later_proposals_may_begin() -> None:
    registry = registry_of(SPACE, SearchOptions(search="optuna", trials=9, search_seed=1))
    Simulation(registry, first_of, 1).run(4)
    assert registry.stored
    assert registry.unneeded() == set()
    saved = json.loads(json.dumps(registry.to_json()))
    again = registry_of(SPACE, SearchOptions(search="optuna", trials=9, search_seed=1), set(registry.stored))
    again.restore(saved["log"], saved["trials"])
    assert again.unneeded() == set()


def test_optuna_learns_from_results_and_its_seed_decides() -> None:
    space = Space({LR: Range(1e-4, 1.0)})

    def best(seed: int) -> list[float]:
        registry = registry_of(space, SearchOptions(search="optuna", trials=25, search_seed=seed))
        while (trial := registry.next(1)) is not None:
            rate = trial.point[LR]
            registry.take(trial.name, Begun(ends=()))
            registry.take(trial.name, Done(top1=100 - abs(rate - 0.01) * 100, digest="d"))
        assert registry.is_over
        return [trial.point[LR] for trial in registry.trials]

    rates = best(0)
    assert rates == best(0)
    assert rates != best(1)
    assert len([rate for rate in rates[10:] if rate < 0.1]) > len([rate for rate in rates[10:] if rate >= 0.1])


def test_a_point_that_is_proposed_twice_runs_once() -> None:
    space = Space({BITS: Choices((5, 3))})
    registry = registry_of(space, SearchOptions(search="optuna", trials=8))
    Simulation(registry, first_of, 1).run()
    assert sorted(trial.point[BITS] for trial in registry.trials) == [3, 5]
    assert [entry[0] for entry in registry.log].count("ask") == 8
    assert [entry[0] for entry in registry.log].count("tell") == 8


def test_points_are_not_compared_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_of(Space({LR: Range(1e-4, 1e-1)}), SearchOptions(search="random", trials=50))
    compared: list[Point] = []

    def counted(point: Point) -> str:
        compared.append(point)
        return json.dumps(point)

    monkeypatch.setattr("inq_ray.sweep.trials.registry.point_key", counted)
    registry.plan()
    assert len(registry.trials) == 50
    assert len(compared) <= 100


def test_random_points_are_distinct_and_end_with_the_space() -> None:
    registry = registry_of(SPACE, SearchOptions(search="random", trials=50))
    registry.plan()
    assert len(registry.trials) == 12
    points = [str(trial.point) for trial in registry.trials]
    assert len(set(points)) == 12
    assert points != sorted(points)


def test_another_space_is_noticed_when_a_sweep_goes_on() -> None:
    registry = registry_of(SPACE, SearchOptions())
    registry.plan()
    saved = registry.to_json()
    other = registry_of(Space({SCHEDULE: Choices(tuple(SCHEDULES[1:]))}), SearchOptions())
    with pytest.raises(ValueError, match="the sweep cannot continue: t001"):
        other.restore(saved["log"], saved["trials"])


def test_a_trial_that_was_begun_under_other_keys_trains_for_nobody_else() -> None:
    """As when the program was changed while a sweep was interrupted: the trial's checkpoints are the former one's."""
    registry = registry_of(SPACE, SearchOptions())
    first = registry.next(1)
    assert first is not None
    registry.take(first.name, Begun(ends=()))
    state = registry.to_json()
    changed = Origin(**{**vars(ORIGIN), "numerics": "changed"})

    def new_keys(config: RunConfig) -> Mapping[int, str]:
        return stage_keys(config, changed)

    for _ in range(2):  # nor when it goes on once more
        saved = json.loads(json.dumps(state))
        proposer = ListProposer(list(SPACE.grid()))
        again = TrialRegistry(proposer, SearchOptions(), configured=named, keys=new_keys, stored=set())
        again.restore(saved["log"], saved["trials"])
        again.plan()
        assert [trial.name for trial in again.trials if not trial.keys and len(trial.schedule) > 1] == [first.name]
        again.next(1)
        state = again.to_json()


def test_names_follow_the_order() -> None:
    registry = registry_of(SPACE, SearchOptions())
    registry.plan()
    numbers = [int(trial.name.removeprefix("t")) for trial in registry.trials]
    assert all(after == before + 1 for before, after in pairwise(numbers))
    assert [trial.config.output.name for trial in registry.trials] == [trial.name for trial in registry.trials]
