"""What a run cannot have written is refused in one line that names it; all that runs write is believed."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from inq_ray.training.checkpoint.compact import compact
from inq_ray.training.checkpoint.facts import Facts
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.restore import restore
from inq_ray.training.checkpoint.snapshot import AVERAGE, CODES, FROZEN, MOMENTUM, SUMS, Snapshot
from inq_ray.training.checkpoint.validate import check_tensors
from tests.training.checkpoint.networks import expand, make_network, make_parts, make_snapshot

POSITION = TrainingPosition(stage=2, epoch=0, step=2)


@pytest.fixture(scope="module")
def written() -> Snapshot:
    return compact(make_snapshot(POSITION, stages=2))


@pytest.fixture(scope="module")
def values(written: Snapshot) -> dict[str, Any]:
    """The facts in JSON."""
    return json.loads(json.dumps(written.facts.to_json()))


def changed(facts: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return the facts with another value at a path of names and numbers."""
    facts = json.loads(json.dumps(facts))
    *above, last = [int(part) if part.isdigit() else part for part in path.split("|")]
    holder = facts
    for part in above:
        holder = holder[part]
    holder[last] = value
    return facts


def test_what_runs_write_is_believed(written: Snapshot) -> None:
    check_tensors(expand(written))
    for stages in (1, 2, 3):
        for ema_decay in (None, 0.9):
            snapshot = compact(
                make_snapshot(TrainingPosition(stage=stages, epoch=0, step=2), stages=stages, ema_decay=ema_decay)
            )
            assert (
                Facts.from_json(json.loads(json.dumps(snapshot.facts.to_json()))).quantized == snapshot.facts.quantized
            )
            check_tensors(expand(snapshot))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("place", {"stage": 2, "epoch": 0}, "place is"),
        ("place|step", True, "place is"),
        ("place|step", -1, "place is"),
        ("place|epoch", 10**12, "too large for a name"),
        ("place|stage", 9, "beyond the end of its run, which has 4 stages"),
        ("place|epoch", 4, "epochs_done is 2, with 2 lines of metrics"),
        ("place|epoch", 5, "beyond the end of its run"),
        ("epochs_done", 1, "epochs_done is 1, with 2 lines of metrics"),
        ("epochs_done", "2", "epochs_done must be a whole number, got '2'"),
        ("epochs_done", 2.0, "epochs_done must be a whole number, got 2.0"),
        ("seconds|run", float("inf"), "seconds is"),
        ("seconds|run", -1.0, "seconds is"),
        ("rows|0|top1", "high", "rows[0].top1 must be a number"),
        ("rows|0|stage", None, "rows[0].stage must be a whole number"),
        ("rows|0|new", 1, "'rows[0].new' is unknown"),
        ("bad_images|x", 1, "bad_images['x'] must be a text"),
        ("faults|rewinds", [-1], "faults is"),
        ("inq", None, "inq is None in stage 2"),
        ("inq|stage", 1, "inq has stage 1 of 3, the position has 2"),
        ("inq|portions", [0.5], "inq has stage 2 of 1"),
        ("inq|portions", [0.9, 0.8, 1.0], "each must be larger than the one before"),
        ("inq|strategy", "any", "strategy"),
        ("inq|seed", 2**63, "inq.seed is"),
        ("inq|tensors|0.weight|num_bits", 9, "from 2 to 8, got 9"),
        ("inq|tensors|0.weight|n_1", 10**9, "n_1 must be None or a whole number"),
        ("inq|tensors|0.weight|num_frozen", 10**9, "0.weight has 1000000000 frozen weights"),
        ("inq|tensors|0.weight|shape", [2**60], "0.weight has shape"),
        ("inq|tensors|0.weight|live_only", [1], "inq.tensors['0.weight'].live_only must be a list of texts"),
        ("rows|0|epoch", -1, "rows is"),
        ("time", 10**300, "time must be a number"),
        ("groups|0|lr", -0.1, "groups is"),
        ("groups|0|params", 1, "groups is"),
        ("lr_scheduler", [], "lr_scheduler must be an object"),
        ("scaler", {"scale": "x"}, "scaler['scale'] must be"),
        ("has_ema", 1, "has_ema must be true or false"),
        ("config|training|lr", -1.0, "--lr must be finite and above 0"),
        ("config|new", 1, "'config.new' is unknown"),
        ("config", None, "config must be an object"),
        ("fingerprint", 1, "fingerprint must be a text"),
        ("versions|cuda", "1", "versions is"),
        ("world_size", 0, "world_size is"),
        ("gradients", "sparse", "gradients is 'sparse', not one of dense, live"),
        ("found_lr", -0.1, "found_lr is"),
    ],
)
def test_facts_that_no_run_writes(values: dict[str, Any], path: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011, looked at below
        Facts.from_json(changed(values, path, value))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_every_fact_is_missed(values: dict[str, Any]) -> None:
    for name in values:
        facts = {each: value for each, value in values.items() if each != name}
        if name in ("faults", "time", "order_workers", "world_sizes", "gradients", "found_lr"):
            Facts.from_json(facts)  # those that earlier versions did not write
            continue
        with pytest.raises(ValueError, match=name):
            Facts.from_json(facts)
    Facts.from_json({**values, "of a later version": [1]})


def test_no_position() -> None:
    for value in (None, [], "checkpoint-01-0000-00000000", {"stage": 1, "epoch": 0, "step": "0"}):
        with pytest.raises(ValueError, match="place is"):
            TrainingPosition.from_json(value)


ZERO = torch.zeros(3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: {"other/x": ZERO}, "tensor 'other/x' is of an unknown kind"),
        (lambda _: {f"{MOMENTUM}new": ZERO}, "momentum/new is torch.float64 [3], the network's missing"),
        (
            lambda _: {f"{MOMENTUM}0.bias": ZERO[:1].float()},
            "momentum/0.bias is torch.float32 [1], the network's",
        ),
        (lambda _: {f"{AVERAGE}0.bias": torch.zeros(8).double()}, "average/0.bias is torch.float64 [8]"),
        (lambda _: {SUMS: ZERO}, "sums is torch.float64 [3], with 1 ranks"),
        (
            lambda _: {f"{FROZEN}0.bias": torch.zeros(8).bool()},
            "there are 4 tensors frozen/, but 3 quantized ones",
        ),
        (lambda tensors: {f"{FROZEN}0.weight": ~tensors[f"{FROZEN}0.weight"]}, "frozen weights of 216, expected 173"),
        (
            lambda tensors: {f"{CODES}0.weight": tensors[f"{CODES}0.weight"] * 0 + 7},
            "has codes that are not in its codebook",
        ),
        (lambda tensors: {f"{CODES}0.weight": (~tensors[f"{FROZEN}0.weight"]).byte()}, "or codes of live weights"),
    ],
)
def test_tensors_that_no_run_writes(
    written: Snapshot, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], said: str
) -> None:
    snapshot = expand(written)
    with pytest.raises(ValueError) as error:  # noqa: PT011, looked at below
        check_tensors(Snapshot({**snapshot.tensors, **change(snapshot.tensors)}, snapshot.facts))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_averages_are_there_where_facts_say_so(written: Snapshot) -> None:
    snapshot = expand(written)
    with pytest.raises(ValueError, match="has_ema is False, with"):
        check_tensors(Snapshot(snapshot.tensors, replace(snapshot.facts, has_ema=False)))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("inq", {"portions": (0.5, 0.8, 0.9)}, "stages have portions"),
        ("inq", {"strategy": "random"}, "stages have strategy random, the run's pruning"),
        ("inq", {"seed": 1}, "stages have seed 1, the run's 0"),
        ("groups", (), "optimizer has 0 groups of parameters, the run's 2"),
        ("lr_scheduler", {"last_epoch": -1}, "learning-rate schedule has last_epoch"),
        ("lr_scheduler", {"base_lrs": [0.05]}, "learning-rate schedule has base_lrs"),
        ("lr_scheduler", {"step": 1}, "learning-rate schedule has step, which is not part of its state"),
    ],
)
def test_what_fits_no_run_changes_nothing(written: Snapshot, name: str, change: Any, said: str) -> None:
    """Of another run, or such that torch would take it and fail later."""
    snapshot = expand(written)
    parts = make_parts(make_network(seed=3), ema_decay=None)
    old = getattr(snapshot.facts, name)
    value = {"inq": lambda: replace(old, **change), "groups": lambda: change, "lr_scheduler": lambda: old | change}[
        name
    ]()
    before = {each: tensor.clone() for each, tensor in parts.model.state_dict().items()}
    with pytest.raises(ValueError) as error:  # noqa: PT011, looked at below
        restore(Snapshot(snapshot.tensors, replace(snapshot.facts, **{name: value})), parts)
    assert said in str(error.value)
    assert all(torch.equal(before[each], tensor) for each, tensor in parts.model.state_dict().items())


def test_momentum_of_another_shape_is_not_spread_over_the_parameter(written: Snapshot) -> None:
    snapshot = expand(written)
    tensors = {**snapshot.tensors, f"{MOMENTUM}0.bias": torch.ones(1)}
    with pytest.raises(ValueError, match=r"momentum of 0\.bias as \[1\], the network \[8\]"):
        restore(Snapshot(tensors, snapshot.facts), replace(make_parts(make_network(seed=3), ema_decay=None)))
