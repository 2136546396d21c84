"""Which stage ends have one key: those that are the same bits, and as many of them as can be known beforehand."""

import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from inq_ray.core.portions import check_portions
from inq_ray.sweep.reuse.code_fingerprint import code_fingerprint
from inq_ray.sweep.reuse.keys import Origin, stage_keys
from inq_ray.sweep.space.space import BITS, SCHEDULE
from inq_ray.training.config import RunConfig, field_type
from inq_ray.training.config.option import Affects, declared
from inq_ray.training.config.recipes import default_recipe
from tests.training.toys import toy_network, toy_task

INFO = toy_task(1).info
ORIGIN = Origin(weights="w", teacher="", code="", fingerprint="f", numerics="n")
BASE = default_recipe("digits_cnn", 5)
SCHEDULES = [
    (0.5, 0.75, 0.875, 1.0), (0.5, 0.75, 0.9, 1.0), (0.5, 0.75, 1.0), (0.3, 0.6, 0.8, 1.0), (0.5, 1.0), (1.0,),
]  # fmt: skip
CONFIGS = st.builds(
    lambda schedule, bits, lr, epochs, total, float_epochs, each: BASE.replace(
        quantization={"iterative_steps": schedule, "weight_bits": bits},
        training={
            "lr": lr,
            "epochs": epochs,
            "epochs_total": None if each else total,
            "float_epochs": float_epochs,
            "epochs_each": each[: len(schedule)],
            "lr_each": [lr, 0.03, lr, 0.01][: len(schedule)] if each else (),
        },
    ),
    st.sampled_from(SCHEDULES),
    st.sampled_from([3, 5]),
    st.sampled_from([0.01, 0.02]),
    st.sampled_from([1, 2]),
    st.sampled_from([None, 4, 5, 6]),
    st.sampled_from([0, 3]),
    st.sampled_from([(), (1, 1, 1, 2), (2, 2, 1, 1)]),
)


def rates_of(config: RunConfig) -> tuple[float, ...]:
    return config.training.lr_each or (config.training.lr,) * len(config.quantization.iterative_steps)


def shared_stages(one: RunConfig, other: RunConfig) -> set[int]:
    """By the definition: same network, data and training before; same bits; same portion, epochs, rate until."""
    if one.float_epochs != other.float_epochs:
        return set()
    shared = {0} if one.float_epochs else set()
    if one.quantization.weight_bits != other.quantization.weight_bits:
        return shared
    stages = [
        list(zip(each.quantization.iterative_steps, each.stage_epochs, rates_of(each), strict=True))[:-1]
        for each in (one, other)
    ]
    for stage, (mine, yours) in enumerate(zip(*stages, strict=False), start=1):
        if mine != yours:
            break
        shared.add(stage)
    return shared


@given(CONFIGS, CONFIGS)
def test_keys_are_shared_as_far_as_two_runs_are_alike(one: RunConfig, other: RunConfig) -> None:
    mine, yours = stage_keys(one, ORIGIN), stage_keys(other, ORIGIN)
    stages = range(0 if one.float_epochs else 1, len(one.quantization.iterative_steps))
    assert list(mine) == list(stages)
    assert {stage for stage in mine if mine[stage] == yours.get(stage)} == shared_stages(one, other)
    assert len(set(mine.values())) == len(mine)


CHANGES: list[dict[str, dict[str, Any]]] = [
    {"data": {"holdout": 5}}, {"data": {"auto_augment": "randaugment"}}, {"network": {"arch": "cifar_resnet20"}},
    {"training": {"float_lr": 0.3}}, {"training": {"momentum": 0.5}}, {"training": {"weight_decay": 0.3}},
    {"training": {"seed": 1}}, {"training": {"batch_size": 63}}, {"training": {"accumulate": 2}},
    {"training": {"lr_schedule": "constant"}}, {"training": {"limit_batches": 3}}, {"training": {"on_nan": "skip"}},
    {"training": {"ema_decay": 0.9}}, {"training": {"ema_share": 0.3}}, {"cluster": {"num_workers": 3}},
    {"cluster": {"cpus_per_worker": 2}},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_what_decides_bits_from_the_start_is_in_every_key(change: dict[str, dict[str, Any]]) -> None:
    keys = stage_keys(BASE, ORIGIN)
    changed = stage_keys(BASE.replace(**change), ORIGIN)
    assert keys.keys() == changed.keys() == {0, 1, 2, 3}
    assert not set(keys.values()) & set(changed.values())


@pytest.mark.parametrize(
    "change",
    [{"quantization": {"weight_bits": 3}}, {"quantization": {"strategy": "random"}}, {"training": {"lr": 0.5}},
     {"quantization": {"skip": ("classifier",)}}, {"quantization": {"layer_bits": ("classifier=3",)}},
     {"quantization": {"codebook": "mse"}},
     {"training": {"distill": True}}, {"training": {"distill_labels": 0.5}}],
    ids=str,
)  # fmt: skip
def test_what_plays_no_part_before_the_first_stage_leaves_its_key(change: dict[str, dict[str, Any]]) -> None:
    keys, changed = stage_keys(BASE, ORIGIN), stage_keys(BASE.replace(**change), ORIGIN)
    assert keys[0] == changed[0]
    assert not {keys[stage] for stage in (1, 2, 3)} & set(changed.values())


@pytest.mark.parametrize(
    "change",
    [{"data": {"data": "elsewhere", "loader_workers": 3}}, {"output": {"name": "n", "checkpoint_every": "1"}},
     {"network": {"weights": "elsewhere.safetensors"}}, {"cluster": {"max_failures": 9, "on_mismatch": "restart"}},
     {"training": {"bn_images": 5}}],
    ids=str,
)  # fmt: skip
def test_what_decides_no_bit_before_the_last_end_is_in_no_key(change: dict[str, dict[str, Any]]) -> None:
    assert stage_keys(BASE, ORIGIN) == stage_keys(BASE.replace(**change), ORIGIN)


def other_value(name: str, value: Any) -> Any:
    """What else the field may be."""
    if name in ("data.mean", "data.std"):
        return (0.25, 0.5, 0.25)
    if name == "quantization.layer_bits":
        return ("classifier=3",)
    if name in ("data.crop_scale", "data.crop_ratio"):
        return (0.5, 1.0)
    kind, choices = field_type(name), declared(RunConfig)[name].choices
    if choices is not None:
        return next(each for each in choices if each != value)
    of_kind: list[tuple[Any, Any]] = [
        (bool, not value), (int, 300), (float, 0.25), (tuple[str, ...], ("other",)), (tuple[int, ...], (2, 1, 1, 1)),
        (tuple[float, ...], (0.25, 0.1, 0.1, 0.1)),
    ]  # fmt: skip
    known = {each for each, _ in of_kind}
    (kind,) = {kind, *typing.get_args(kind)} & known if kind not in known else {kind}
    return next(other for each, other in of_kind if each == kind)


# Those that a test above looks at, what needs GPUs, and what decides no bit before the last end.
ELSEWHERE = {SCHEDULE, BITS, "training.epochs_spread", "training.sync_batchnorm", "training.bn_images"}
SEARCHABLE = [
    name
    for name, each in declared(RunConfig).items()
    if each.option.sweep is True and each.option.affects is not Affects.NOTHING and name not in ELSEWHERE
]


@pytest.mark.parametrize("name", SEARCHABLE)
def test_whatever_trials_may_differ_in_is_in_their_keys(name: str) -> None:
    section, _, field = name.partition(".")
    base = BASE.replace(training={"batch_size": 1000})
    changed = base.replace(**{section: {field: other_value(name, getattr(getattr(base, section), field))}})
    keys = stage_keys(base, ORIGIN)
    assert not {keys[1], keys[2], keys[3]} & set(stage_keys(changed, ORIGIN).values())


def test_epochs_are_in_the_keys_however_they_are_divided() -> None:
    even, late = (
        stage_keys(BASE.replace(training={"epochs_total": 12, "epochs_spread": spread}), ORIGIN)
        for spread in ("even", "late")
    )
    assert [even[stage] == late[stage] for stage in range(4)] == [True, False, False, False]


@pytest.mark.parametrize("name", ["weights", "teacher", "code", "fingerprint", "numerics"])
def test_another_origin_has_other_keys(name: str) -> None:
    other = Origin(**{**vars(ORIGIN), name: "other"})
    assert not set(stage_keys(BASE, ORIGIN).values()) & set(stage_keys(BASE, other).values())


def test_the_origin_is_of_the_weights_themselves() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    origin = Origin.of(BASE, model, INFO)
    assert origin == Origin.of(BASE, model, INFO)
    assert (origin.code, origin.fingerprint, origin.numerics) == ("", INFO.fingerprint, code_fingerprint())
    with torch.no_grad():
        model.weight[0, 0] = -model.weight[0, 0]
    assert Origin.of(BASE, model, INFO).weights != origin.weights


def test_a_network_of_ones_own_is_known_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_sweep_net.py").write_text("from torch import nn\ndef net():\n    return nn.Linear(1, 1)\n")
    config = BASE.replace(network={"arch": "my_sweep_net:net"})
    code = Origin.of(config, nn.Linear(1, 1), INFO).code
    assert len(code) == 64
    (tmp_path / "my_sweep_net.py").write_text("from torch import nn\ndef net():\n    return nn.Linear(1, 2)\n")
    assert Origin.of(config, nn.Linear(1, 1), INFO).code != code


def test_a_teacher_of_another_network_is_known_by_its_weights_and_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    source = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))\n"
    (tmp_path / "my_teacher_net.py").write_text(source)
    weights = tmp_path / "teacher.safetensors"
    save_file({"1.weight": torch.zeros(3, 36), "1.bias": torch.zeros(3)}, weights)
    training = {"distill": True, "teacher": str(weights), "teacher_arch": "my_teacher_net:net"}
    config = BASE.replace(training=training)
    teachers = [Origin.of(config, toy_network(), INFO).teacher]
    save_file({"1.weight": torch.ones(3, 36), "1.bias": torch.zeros(3)}, weights)
    teachers.append(Origin.of(config, toy_network(), INFO).teacher)
    (tmp_path / "my_teacher_net.py").write_text(source + "\n")
    teachers.append(Origin.of(config, toy_network(), INFO).teacher)
    assert len(set(teachers)) == 3


@given(st.lists(st.sampled_from([0.2, 0.4, 0.6, 0.8]), min_size=1, unique=True))
def test_the_last_stage_has_none(inner: list[float]) -> None:
    schedule = check_portions([*sorted(inner), 1.0])
    config = BASE.replace(quantization={"iterative_steps": schedule}, training={"float_epochs": 0})
    assert list(stage_keys(config, ORIGIN)) == list(range(1, len(schedule)))
