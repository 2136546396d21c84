"""Every branch of the decision whether a run starts, goes on, is finished, or is refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inq_ray.storage.address import locate
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.resume import (
    NOTHING,
    Decision,
    Finished,
    Refuse,
    Resume,
    Standing,
    Start,
    decide,
    differences,
    look_at,
)
from inq_ray.training.checkpoint.retention import Entry
from inq_ray.training.checkpoint.snapshot import Snapshot, take
from inq_ray.training.checkpoint.store import CheckpointStore, Damaged, Found
from inq_ray.training.config import RunConfig
from inq_ray.training.config.output import AUTO, NEVER
from tests.training.checkpoint.networks import SUMS_OF_ONE, make_history, make_network, make_parts, make_snapshot

POSITION = TrainingPosition(stage=1, epoch=0, step=2)
LATER = TrainingPosition(stage=1, epoch=0, step=3)
NEWER = Damaged(TrainingPosition(stage=1, epoch=0, step=4), "facts.json is missing")
CONFIG = RunConfig().replace(output={"name": "tiny"})


def snapshot_with(config: RunConfig = CONFIG, fingerprint: str | None = "f", **facts: Any) -> Snapshot:
    parts = make_parts(make_network())
    snapshot = take(parts, make_history(), SUMS_OF_ONE, position=POSITION, config=config, fingerprint=fingerprint)
    return Snapshot(snapshot.tensors, dataclasses.replace(snapshot.facts, **facts))


def found(*damaged: Damaged, **facts: Any) -> Found:
    return Found(Entry(position=POSITION), snapshot_with(**facts), damaged)


def standing(found: Found = NOTHING, config: RunConfig = CONFIG, *, is_finished: bool = False) -> Standing:
    return Standing(name="tiny", config=config, is_finished=is_finished, found=found)


def line_of(decision: Decision) -> str:
    assert isinstance(decision, Refuse | Finished)
    assert "\n" not in decision.line
    return decision.line


@pytest.mark.parametrize("mode", [AUTO, NEVER])
def test_where_nothing_is_it_starts(mode: str) -> None:
    assert decide(mode, Standing(name="tiny"), CONFIG) == Start()


@pytest.mark.parametrize("mode", [AUTO, NEVER])
@pytest.mark.parametrize("is_finished", [True, False])
def test_what_is_to_be_overwritten_starts(mode: str, is_finished: bool) -> None:
    config = CONFIG.replace(output={"overwrite": True}, training={"lr": 0.5})
    assert decide(mode, standing(found(), is_finished=is_finished), config) == Start()


@pytest.mark.parametrize(("is_finished", "state"), [(True, "a finished"), (False, "an unfinished")])
def test_never_refuses_a_name_that_is_taken(is_finished: bool, state: str) -> None:
    line = line_of(decide(NEVER, standing(found(), is_finished=is_finished), CONFIG))
    assert f"{state} run" in line
    assert "--overwrite" in line


def test_auto_goes_on_from_the_newest_whole_one() -> None:
    there = found()
    decision = decide(AUTO, standing(there), CONFIG, fingerprint="f")
    assert isinstance(decision, Resume)
    assert there.snapshot is not None
    assert decision.config == there.snapshot.facts.config
    assert decision.entry.position == POSITION
    assert decision.notes == ()


def test_auto_names_what_is_damaged() -> None:
    decision = decide(AUTO, standing(found(NEWER)), CONFIG)
    assert isinstance(decision, Resume)
    assert decision.notes == ("checkpoint-01-0000-00000004 is damaged and ignored: facts.json is missing",)


def test_auto_says_that_a_run_is_finished() -> None:
    decision = decide(AUTO, standing(found(), is_finished=True), CONFIG)
    assert decision == Finished("run tiny is finished: there is nothing left to do")


def test_a_finished_run_of_another_configuration_is_no_finished_one() -> None:
    line = line_of(decide(AUTO, standing(found(), is_finished=True), CONFIG.replace(training={"lr": 0.5})))
    assert "--lr 0.001 (now 0.5)" in line


def test_a_run_that_ended_before_its_first_checkpoint_starts() -> None:
    assert decide(AUTO, standing(NOTHING), CONFIG) == Start()
    line = line_of(decide(AUTO, standing(NOTHING), CONFIG.replace(training={"seed": 5})))
    assert "--seed 0 (now 5)" in line


def test_where_all_are_damaged_it_is_refused() -> None:
    line = line_of(decide(AUTO, standing(Found(None, None, (NEWER,))), CONFIG))
    assert "all 1 checkpoint(s) are damaged, checkpoint-01-0000-00000004: facts.json is missing" in line
    assert "--overwrite" in line


@pytest.mark.parametrize("mode", [AUTO, "/elsewhere"])
def test_a_configuration_that_differs_is_refused_with_the_difference(mode: str) -> None:
    quantization = {"iterative_steps": (0.5, 1.0), "layer_bits": ("classifier=4",)}
    config = CONFIG.replace(training={"lr": 0.5, "nesterov": True}, quantization=quantization)
    chosen = found() if mode != AUTO else None
    line = line_of(decide(mode, standing(found()), config, chosen=chosen))
    assert "--lr 0.001 (now 0.5)" in line
    assert "without --nesterov (now given)" in line
    assert "--iterative-steps 0.5 0.75 0.875 1.0 (now 0.5 1.0)" in line
    assert "--layer-bits not given (now classifier=4)" in line


def test_what_does_not_matter_may_change() -> None:
    config = CONFIG.replace(
        data={"loader_workers": 7, "skip_bad_images": 3, "follow_links": True},
        output={"print_freq": 10, "storage_path": "/else"},
    )
    decision = decide(AUTO, standing(found()), config)
    assert isinstance(decision, Resume)
    assert decision.notes == ()
    assert differences(CONFIG, config) == []


def test_another_number_of_workers_goes_on_and_is_said() -> None:
    config = CONFIG.replace(cluster={"num_workers": 3, "cpus_per_worker": 2})
    decision = decide(AUTO, standing(found()), config)
    assert isinstance(decision, Resume)
    (note,) = decision.notes
    assert "--num-workers 2 changed to 3, --cpus-per-worker 1 changed to 2: the result may differ in bits" in note


def test_another_version_goes_on_and_is_said() -> None:
    versions = {**snapshot_with().facts.versions, "torch": "1.0"}
    decision = decide(AUTO, standing(found(versions=versions)), CONFIG)
    assert isinstance(decision, Resume)
    assert "torch 1.0 changed to 2." in decision.notes[0]


def test_every_field_is_known_to_matter_or_not() -> None:
    """A new field matters until somebody says otherwise."""
    different = CONFIG.replace(
        data={"data": "x", "holdout": 1, "shuffle_buffer": 5},
        network={"arch": "resnet18", "weights": "w", "replace_head": True},
        cluster={"num_workers": 4, "use_gpu": True},
    )
    assert {each.name for each in differences(CONFIG, different)} == {
        "data.data", "data.holdout", "data.shuffle_buffer", "network.arch", "network.weights", "network.replace_head",
        "cluster.num_workers", "cluster.use_gpu",
    }  # fmt: skip
    assert [each.name for each in differences(CONFIG, dataclasses.replace(CONFIG, plain=True))] == ["plain"]


def test_the_same_images_may_lie_elsewhere_and_others_not_at_the_same_place() -> None:
    moved = CONFIG.replace(data={"data": "/mnt/other"})
    assert isinstance(decide(AUTO, standing(found()), moved, fingerprint="f"), Resume)
    assert "--data digits (now /mnt/other)" in line_of(decide(AUTO, standing(found()), moved))
    line = line_of(decide(AUTO, standing(found()), CONFIG, fingerprint="g"))
    assert "--data digits as it was (now digits as it is)" in line


def test_a_path_goes_on_under_a_new_name_or_its_own() -> None:
    chosen = found()
    for there in (Standing(name="other"), standing(found(NEWER))):
        decision = decide("/a/b", there, CONFIG.replace(output={"name": there.name}), chosen=chosen)
        assert isinstance(decision, Resume)
        assert chosen.snapshot is not None
        assert decision.config == chosen.snapshot.facts.config


def test_a_run_that_was_begun_by_a_path_goes_on_by_it_and_does_not_begin_without() -> None:
    config = CONFIG.replace(output={"name": "other"})
    begun = Standing(name="other", config=config, begun_from="/a/b")
    assert isinstance(decide("/a/b", begun, config, chosen=found()), Resume)
    assert "pass --resume /a/b, from which it was started" in line_of(decide(AUTO, begun, config))
    own = dataclasses.replace(begun, found=found())
    assert isinstance(decide(AUTO, own, config), Resume)
    assert isinstance(decide(AUTO, begun, config.replace(output={"overwrite": True})), Start)


@pytest.mark.parametrize(
    ("there", "config", "said"),
    [
        (lambda: standing(is_finished=True), CONFIG, "that run is finished: use another --name"),
        (
            lambda: standing(found()._replace(entry=Entry(position=LATER))),
            CONFIG,
            f"run tiny has later checkpoints, up to {LATER.name}: use another --name",
        ),
        (
            lambda: standing(config=CONFIG.replace(output={"name": "b"})),
            CONFIG,
            "an unfinished run of that name exists, and --resume /a/b belongs to run tiny",
        ),
        (lambda: Standing(name="x"), CONFIG.replace(output={"overwrite": True}), "--overwrite deletes the run"),
    ],
)
def test_a_path_is_refused(there: Callable[[], Standing], config: RunConfig, said: str) -> None:
    assert said in line_of(decide("/a/b", there(), config, chosen=found()))


def test_looking_at_a_path(tmp_path: Path) -> None:
    store = CheckpointStore(locate(str(tmp_path)))
    store.save(make_snapshot(POSITION), top1=12.5)
    path = tmp_path / POSITION.name
    looked = look_at(str(path))
    assert looked.entry is not None
    assert (looked.entry.position, looked.entry.top1) == (POSITION, 12.5)
    assert isinstance(decide(str(path), Standing(name="other"), RunConfig(), chosen=looked), Resume)
    for wrong in (tmp_path, tmp_path / "nowhere", "yes"):
        with pytest.raises(ValueError, match=r"--resume .*: not a checkpoint .*, and neither auto nor never"):
            look_at(str(wrong))
    (path / "facts.json").unlink()
    with pytest.raises(ValueError, match=r"this checkpoint is damaged: facts\.json is missing; use another"):
        look_at(str(path))
