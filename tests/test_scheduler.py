import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer, lr_scheduler

import inq_ray
import inq_ray.scheduler as scheduler_module
from inq_ray.core.channels import Per
from inq_ray.core.codebook import Levels
from inq_ray.core.digest import digest_tensors, summary
from inq_ray.core.optim.lr_restart import reset_lr_scheduler
from inq_ray.core.optim.sgd import SGD
from inq_ray.core.portions import num_frozen
from inq_ray.core.stage import StageUpdate, apply
from inq_ray.core.state import TensorState
from inq_ray.distributed.agreement import ReplicaMismatchError
from inq_ray.distributed.broadcast import StageError
from inq_ray.distributed.digest import state_tensors
from inq_ray.distributed.wire import rank
from inq_ray.scheduler import INQScheduler
from tests.core.test_channels import ANY_LEVELS, ANY_PER
from tests.core.weights import bits
from tests.ranks import rank_outcomes, run_ranks

PORTIONS = [0.5, 0.75, 0.875, 1.0]


def make_model(seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4, 5))
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn(param.shape, generator=generator) * 0.3)
    return model


def make(
    model: nn.Module, portions: list[float] = PORTIONS, *, levels: Levels = "paper", per: Per = "tensor", **chosen: Any
) -> tuple[SGD, INQScheduler]:
    groups = inq_ray.param_groups(model, weight_bits=4, levels=levels, codebook_per=per)
    optimizer = SGD(groups, lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True, fused=True)
    return optimizer, INQScheduler(optimizer, portions, **chosen)


def train(model: nn.Module, optimizer: Optimizer, seed: int, num_steps: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        images, labels = torch.randn(8, 2, 4, 4, generator=generator), torch.randint(5, (8,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def levels_of(scheduler: INQScheduler, name: str) -> set[float]:
    return set(scheduler.state[name].codebook.values())


@settings(max_examples=15)
@given(
    st.integers(0, 10),
    st.sampled_from([[1.0], [0.5, 1.0], PORTIONS, [0.2, 0.4, 0.6]]),
    st.sampled_from(["pruning", "random"]),
    st.booleans(),
    ANY_LEVELS,
    ANY_PER,
)
def test_stages_and_training(
    seed: int, portions: list[float], strategy: str, channels_last: bool, levels: Levels, per: Per
) -> None:
    """Properties 1 to 3 of the design, in the loop that a user writes."""
    model = make_model(seed)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer, scheduler = make(model, portions, levels=levels, per=per, strategy=strategy)
    params = dict(model.named_parameters())
    frozen_bits: dict[str, list[int]] = {}
    for portion in portions:
        before = {name: state.frozen.clone() for name, state in scheduler.state.items()}
        scheduler.step()
        for name, state in scheduler.state.items():
            assert state.num_frozen == num_frozen(portion, params[name].numel())
            assert not bool((before[name] & ~state.frozen).any())
            if name in frozen_bits:
                assert bits(params[name][before[name]]) == frozen_bits[name], "kept through training and stage"
            assert set(params[name][state.frozen].tolist()) <= levels_of(scheduler, name)
            frozen_bits[name] = bits(params[name][state.frozen])
        train(model, optimizer, seed)
        for name, state in scheduler.state.items():
            assert bits(params[name][state.frozen]) == frozen_bits[name]
    assert scheduler.state.keys() == {"0.weight", "4.weight"}
    assert scheduler.stage == len(portions)
    with pytest.raises(ValueError, match="stages of iterative_steps are done"):
        scheduler.step()


def test_errors_of_the_constructor() -> None:
    model = make_model()
    optimizer, _ = make(model)
    for wrong in ([], [0.5, 0.4], [0.5, 1.2], [0.0, 1.0]):
        with pytest.raises(ValueError, match="portions"):
            INQScheduler(optimizer, wrong)
    with pytest.raises(ValueError, match=r"strategy must be one of pruning, random.* got 'largest'"):
        INQScheduler(optimizer, PORTIONS, strategy="largest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must be an inq_ray\.SGD"):
        INQScheduler(torch.optim.SGD(model.parameters()), PORTIONS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no parameter group has weight_bits"):
        INQScheduler(SGD(model.parameters()), PORTIONS)


def test_a_dtype_that_cannot_be_quantized_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match=r"0\.weight: .*complex64"):
        INQScheduler(
            SGD([{"params": [("0.weight", torch.ones(2, dtype=torch.complex64))], "weight_bits": 5}]), PORTIONS
        )


def test_weight_bits_that_change_under_the_scheduler_are_an_error() -> None:
    model = make_model()  # which the scheduler does not keep alive
    optimizer, scheduler = make(model)
    optimizer.param_groups[0]["weight_bits"] = 2
    with pytest.raises(
        ValueError, match=r"0\.weight is being quantized at 4 bits, but its group's weight_bits is now 2"
    ):
        scheduler.step()


def test_two_parameters_of_one_name_are_an_error() -> None:
    one, two = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    groups = [{"params": [("w", one)], "weight_bits": 5}, {"params": [("w", two)], "weight_bits": 5}]
    with pytest.raises(ValueError, match="several parameters named w"):
        INQScheduler(SGD(groups), PORTIONS)


def test_parameters_without_names_are_called_by_their_place() -> None:
    one, two = nn.Parameter(torch.rand(10)), nn.Parameter(torch.rand(10))
    scheduler = INQScheduler(SGD([{"params": [one]}, {"params": [two], "weight_bits": 3}]), [0.5])
    scheduler.step()
    assert list(scheduler.state) == ["1.0"]
    assert scheduler.state["1.0"].num_frozen == 5


def test_an_added_group_joins_at_the_next_stage() -> None:
    model = make_model()
    optimizer, scheduler = make(model)
    scheduler.step()
    added = nn.Parameter(torch.rand(100))
    optimizer.add_param_group({"params": [("added", added)], "weight_bits": 2})
    scheduler.step()
    assert scheduler.state["added"].num_frozen == 75


def test_nan_names_the_tensor_and_changes_nothing() -> None:
    model = make_model()
    _, scheduler = make(model)
    scheduler.step()
    before = summary(digest_tensors(state_tensors(scheduler.state)))
    model[4].weight.data[0, 0] = math.nan
    with pytest.raises(StageError, match=r"stage 2: 4\.weight: weights are NaN or infinite"):
        scheduler.step()
    assert summary(digest_tensors(state_tensors(scheduler.state))) == before
    assert scheduler.stage == 1


def test_what_else_rank_0_meets_is_named_by_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def decide(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    model = make_model()
    _, scheduler = make(model)
    monkeypatch.setattr("inq_ray.scheduler.decide", decide)
    with pytest.raises(StageError, match=r"stage 1: '0\.weight': OutOfMemoryError: tried to allocate 2 GiB") as error:
        scheduler.step()
    assert isinstance(error.value.__cause__, torch.OutOfMemoryError)


@pytest.mark.parametrize(("levels", "per"), [("paper", "tensor"), ("full", "channel")])
def test_resumed_from_state_dicts_it_ends_with_the_same_bits(levels: Levels, per: Per) -> None:
    model = make_model()
    optimizer, scheduler = make(model, levels=levels, per=per, strategy="random", seed=7, codebook="mse")
    for stage in range(2):
        scheduler.step()
        train(model, optimizer, stage)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)
    weights, momentum, state = torch.load(file, weights_only=True)
    resumed = make_model(99)
    resumed.load_state_dict(weights)
    resumed_optimizer, resumed_scheduler = make(resumed, [0.1], levels=levels, per=per)
    resumed_optimizer.load_state_dict(momentum)
    resumed_scheduler.load_state_dict(state)
    assert (resumed_scheduler.portions, resumed_scheduler.seed) == (tuple(PORTIONS), 7)
    assert resumed_scheduler.codebook == "mse"
    for each, by, stages in ((model, optimizer, scheduler), (resumed, resumed_optimizer, resumed_scheduler)):
        train(each, by, 10)
        for stage in (2, 3):
            stages.step()
            train(each, by, stage)
    for tensors in ((model.state_dict(), resumed.state_dict()), tuple(map(_state, (scheduler, resumed_scheduler)))):
        assert digest_tensors(tensors[0]) == digest_tensors(tensors[1])


@pytest.mark.parametrize(("option", "value"), [("levels", "full"), ("per", "channel")])
def test_states_of_other_levels_or_channels_are_refused(option: str, value: Any) -> None:
    model, other = make_model(), make_model(3)
    optimizer, scheduler = make(model)
    scheduler.step()
    other_optimizer, other_scheduler = make(other, **{option: value})
    with pytest.raises(ValueError, match="other levels or another codebook_per than its group"):
        other_scheduler.load_state_dict(scheduler.state_dict())
    with pytest.raises(ValueError, match="create the optimizer with those of the state"):
        other_optimizer.load_state_dict(optimizer.state_dict())
    optimizer.param_groups[0][{"per": "codebook_per"}.get(option, option)] = value
    with pytest.raises(ValueError, match="set them before INQScheduler is created"):
        scheduler.step()


def test_a_group_without_levels_takes_those_of_the_optimizer() -> None:
    param, other = (nn.Parameter(torch.randn(4, 6, generator=torch.Generator().manual_seed(0))) for _ in range(2))
    groups = [{"params": [("a", param)], "weight_bits": 3}, {"params": [("b", other)], "levels": "paper"}]
    scheduler = INQScheduler(SGD(groups, weight_bits=4, levels="full", codebook_per="channel"), [1.0])
    scheduler.step()
    codebooks = {name: state.codebook for name, state in scheduler.state.items()}
    assert [(each.num_bits, each.levels) for each in codebooks.values()] == [(3, "full"), (4, "paper")]
    assert isinstance(codebooks["a"].n_1, tuple)
    for wrong in ({"levels": "all"}, {"codebook_per": "row"}):
        with pytest.raises(ValueError, match="must be one of"):
            SGD([nn.Parameter(torch.zeros(2, 2))], weight_bits=4, **wrong)  # type: ignore[arg-type]


def test_a_state_from_before_there_were_rules_is_of_the_papers() -> None:
    model, other = make_model(), make_model(3)
    _, scheduler = make(model)
    scheduler.step()
    old = scheduler.state_dict()
    del old["codebook"]
    for tensor in old["tensors"].values():
        del tensor["levels"]
    _, later = make(other, codebook="mse")
    later.load_state_dict(old)
    assert (later.stage, later.codebook) == (1, "max")


@pytest.mark.parametrize("num_bits", [2, 3])
def test_the_rule_mse_keeps_more_weights_of_a_bell_shaped_tensor(num_bits: int) -> None:
    shares = {}
    for rule in ("max", "mse"):
        layer = nn.Linear(100, 100, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(100, 100, generator=torch.Generator().manual_seed(0)))
        optimizer = SGD([{"params": [("w", layer.weight)], "weight_bits": num_bits}], lr=0.1)
        INQScheduler(optimizer, [1.0], codebook=rule).step()
        shares[rule] = float((layer.weight == 0).double().mean())
    assert shares["mse"] < 0.5 < shares["max"], shares


def _state(scheduler: INQScheduler) -> dict[str, Tensor]:
    return state_tensors(scheduler.state)


def test_load_state_dict_restores_frozen_weights_and_leaves_live_ones() -> None:
    model = make_model()
    _, scheduler = make(model)
    scheduler.step()
    other = make_model(5)
    other_optimizer, other_scheduler = make(other)
    before = {name: param.detach().clone() for name, param in other.named_parameters()}
    saved = scheduler.state_dict()
    other_scheduler.load_state_dict(saved)
    for name, param in other.named_parameters():
        frozen = scheduler.state[name].frozen if name in scheduler.state else torch.zeros_like(param, dtype=torch.bool)
        assert bits(param[frozen]) == bits(model.get_parameter(name)[frozen])
        assert bits(param[~frozen]) == bits(before[name][~frozen])
    held = {name: bits(other.get_parameter(name)[state.frozen]) for name, state in scheduler.state.items()}
    train(other, other_optimizer, 0)
    assert held == {name: bits(other.get_parameter(name)[s.frozen]) for name, s in scheduler.state.items()}
    before_stage_2 = digest_tensors(state_tensors(scheduler.state))
    other_scheduler.step()
    scheduler.step()
    assert before_stage_2 == digest_tensors(
        {f"{name}/{key}": value for name, state in saved["tensors"].items() for key, value in _saved(state).items()}
    ), "what was saved does not change with what goes on"


def _saved(state: dict[str, Any]) -> dict[str, Tensor]:
    return {
        "frozen": state["frozen"],
        "codes": state["codes"],
        "codebook": torch.tensor([state["num_bits"], state["n_1"]]),
    }


def _break(state: dict[str, Any], how: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    broken = copy.deepcopy(state)
    how(broken)
    return broken


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (lambda s: s.pop("seed"), "the state of an INQScheduler lacks seed"),
        (lambda s: s["tensors"].pop("4.weight"), r"only one side has '4\.weight'"),
        (lambda s: s["tensors"].update(other=s["tensors"]["0.weight"]), "only one side has 'other'"),
        (
            lambda s: s["tensors"]["4.weight"].update(frozen=torch.ones(2).bool()),
            r"state of 4\.weight has shape \(2,\)",
        ),
        (
            lambda s: s["tensors"]["4.weight"].update(num_bits=5),
            r"4\.weight has 5 bits, but its group's weight_bits is 4",
        ),
        (lambda s: s["tensors"]["4.weight"].update(num_bits=9), r"4\.weight: .* from 2 to 8"),
        (lambda s: s["tensors"]["4.weight"].update(n_1=500), r"the state of 4\.weight: n_1 must be"),
        (lambda s: s["tensors"]["4.weight"].update(codes=[1]), r"4\.weight has codes that is a list, not a tensor"),
        (lambda s: s["tensors"].update({"4.weight": None}), r"the state of 4\.weight must be a dictionary, got a None"),
        (lambda s: s.update(tensors=None), "the entry 'tensors' of the state must be a dictionary, got a NoneType"),
        (lambda s: s["tensors"]["4.weight"].pop("n_1"), r"the state of 4\.weight lacks n_1"),
        (
            lambda s: s["tensors"]["4.weight"].update(codes=s["tensors"]["4.weight"]["codes"].float()),
            r"4\.weight has codes of torch\.float32, expected torch\.uint8",
        ),
        (
            lambda s: s["tensors"]["4.weight"].update(frozen=s["tensors"]["4.weight"]["frozen"].byte()),
            r"4\.weight has frozen of torch\.uint8, expected torch\.bool",
        ),
        (lambda s: s.update(stage=0.5), "stage 0.5, of 4 stages"),
        (lambda s: s["tensors"]["4.weight"]["codes"].fill_(255), r"4\.weight has codes that are not in its codebook"),
        (lambda s: s["tensors"]["4.weight"]["codes"].fill_(1), "or codes of live weights"),
        (lambda s: s.update(portions=[0.5, 0.1]), "larger than the one before"),
        (lambda s: s.update(stage=5), "stage 5, of 4 stages"),
        (lambda s: s.update(strategy="none"), "strategy must be"),
        (lambda s: s.update(codebook="min"), "codebook must be one of max, mse, got 'min'"),
    ],
)
def test_a_wrong_state_is_an_error_and_changes_nothing(how: Callable[[dict[str, Any]], Any], words: str) -> None:
    model, other = make_model(), make_model(3)
    _, scheduler = make(model)
    scheduler.step()
    _, other_scheduler = make(other, [0.3, 1.0])
    before = digest_tensors({**other.state_dict(), **state_tensors(other_scheduler.state)})
    with pytest.raises(ValueError, match=words):
        other_scheduler.load_state_dict(_break(scheduler.state_dict(), how))
    assert digest_tensors({**other.state_dict(), **state_tensors(other_scheduler.state)}) == before
    assert (other_scheduler.stage, other_scheduler.portions) == (0, (0.3, 1.0))


# Learning-rate schedules

SCHEDULES: dict[str, Callable[[Optimizer], Any]] = {
    "step": lambda o: lr_scheduler.StepLR(o, 2, gamma=0.3),
    "multistep": lambda o: lr_scheduler.MultiStepLR(o, [1, 4], gamma=0.5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "warm restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, T_mult=2),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=12),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, base_lr=0.01, max_lr=0.1, step_size_up=3),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (epoch + 2)),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda _: 0.9),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=4),
    "constant": lambda o: lr_scheduler.ConstantLR(o, 0.5, total_iters=3),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 6, power=2.0),
    "warm-up and cosine": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=2), lr_scheduler.CosineAnnealingLR(o, 4)], [2]
    ),
    "three in a row": lambda o: lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.ConstantLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.9), lr_scheduler.StepLR(o, 2)],
        [2, 4],
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, total_iters=3), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "row within row": lambda o: lr_scheduler.SequentialLR(
        o,
        [
            lr_scheduler.SequentialLR(o, [lr_scheduler.ConstantLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.9)], [2]),
            lr_scheduler.StepLR(o, 2),
        ],
        [4],
    ),
}


def rates(optimizer: Optimizer, scheduler: Any, num_epochs: int) -> list[Any]:
    """Learning rates and momentum of every group, and what get_last_lr says, now and after each of the epochs."""
    seen = []
    for _ in range(num_epochs + 1):
        seen.append([(float(group["lr"]), group["momentum"]) for group in optimizer.param_groups])
        seen.append([float(rate) for rate in scheduler.get_last_lr()])
        optimizer.step()
        scheduler.step()
    return seen


def two_groups(*, tensor_lr: bool = False) -> SGD:
    first, second = (torch.tensor(0.4), torch.tensor(0.02)) if tensor_lr else (0.4, 0.02)
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": first}, {"params": [nn.Parameter(torch.ones(2))]}]
    return SGD(groups, lr=second, momentum=0.9)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")  # by torch, of a row within a row
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize("num_epochs", [0, 1, 5])
def test_a_reset_schedule_is_a_freshly_made_one(name: str, tensor_lr: bool, num_epochs: int) -> None:
    fresh_optimizer, optimizer = two_groups(tensor_lr=tensor_lr), two_groups(tensor_lr=tensor_lr)
    expected = rates(fresh_optimizer, SCHEDULES[name](fresh_optimizer), 7)
    scheduler = SCHEDULES[name](optimizer)
    tensors = [group["lr"] for group in optimizer.param_groups]
    for _ in range(2):
        for _ in range(num_epochs):
            optimizer.step()
            scheduler.step()
        reset_lr_scheduler(scheduler)
        if tensor_lr:
            assert all(group["lr"] is lr for group, lr in zip(optimizer.param_groups, tensors, strict=True))
    assert rates(optimizer, scheduler, 7) == expected


def test_plateau_needs_to_know_where_it_began() -> None:
    optimizer = two_groups()
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    with pytest.raises(ValueError, match=r"group 0 .*ReduceLROnPlateau sets none.* set .*\[0\]\['initial_lr'\]"):
        reset_lr_scheduler(scheduler)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    for loss in (1.0, 2.0, 3.0):
        scheduler.step(loss)
    assert optimizer.param_groups[0]["lr"] < 0.1
    reset_lr_scheduler(scheduler)
    assert [group["lr"] for group in optimizer.param_groups] == scheduler.get_last_lr() == [0.4, 0.02]
    assert (scheduler.best, scheduler.num_bad_epochs) == (math.inf, 0)


def test_a_group_added_after_the_schedule_is_named() -> None:
    optimizer = two_groups()
    scheduler = lr_scheduler.StepLR(optimizer, 2)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    with pytest.raises(
        ValueError, match=r"group 2 of the optimizer .* or the group was added after the scheduler was created"
    ):
        reset_lr_scheduler(scheduler)


# The snippet of the README of the port that people come from

SNIPPET = """
optimizer = inq.SGD(...)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, ...)
inq_scheduler = inq.INQScheduler(optimizer, [0.5, 0.75, 0.82, 1.0], strategy="pruning")
for inq_step in range(3): # Iteration for accumulated quantized weights of 50% 75% and 82%
    inq.reset_lr_scheduler(scheduler)
    inq_scheduler.step()
    for epoch in range(5):
        scheduler.step()
        train(...)
inq_scheduler.step() # quantize all weights, further training is useless
validate(...)
"""


@pytest.mark.filterwarnings(
    "ignore:Detected call of `lr_scheduler.step:UserWarning"
)  # the snippet's order is the old one
def test_the_snippet_of_the_port_runs_apart_from_import_and_groups() -> None:
    model = make_model()
    rates: list[float] = []
    portions: list[float] = []
    names: dict[str, Any] = {"inq": inq_ray, "torch": torch, "model": model}

    def one_epoch(_: object) -> None:
        optimizer = names["optimizer"]
        train(model, optimizer, seed=len(rates))
        rates.append(optimizer.param_groups[0]["lr"])
        portions.append(names["inq_scheduler"].state["4.weight"].num_frozen / 120)

    code = SNIPPET.replace("inq.SGD(...)", "inq.SGD(inq.param_groups(model, weight_bits=5), lr=0.1, momentum=0.9)")
    code = code.replace("StepLR(optimizer, ...)", "StepLR(optimizer, 2)")
    exec(code, {**names, "train": one_epoch, "validate": lambda _: None} | names, names)
    assert rates == pytest.approx([0.1, 0.01, 0.01, 0.001, 0.001] * 3)
    assert portions == [0.5] * 5 + [0.75] * 5 + [98 / 120] * 5
    for name, state in names["inq_scheduler"].state.items():
        assert bool(state.frozen.all())
        assert set(model.get_parameter(name).flatten().tolist()) <= levels_of(names["inq_scheduler"], name)


def test_the_snippet_is_that_of_the_port(shared_data: Any) -> None:
    readme = (shared_data.parent / "reference" / "INQ-pytorch-README.txt").read_text()
    given_lines = [line.rstrip() for line in readme.splitlines()]
    assert all(line in given_lines for line in SNIPPET.strip().splitlines())


# Many ranks


def digest_of(model: nn.Module, scheduler: INQScheduler) -> str:
    """Of weights, masks, codes and codebooks, without buffers."""
    return summary(digest_tensors({**dict(model.named_parameters()), **state_tensors(scheduler.state)}))


def stages_under_ddp(strategy: str) -> tuple[str, str]:
    """Digests after the first stage, and after all stages and training; ranks begin with other weights than rank 0."""
    model = DistributedDataParallel(make_model(0))
    with torch.no_grad():
        model.module[4].weight += rank()
    optimizer, scheduler = make(model, strategy=strategy)
    after_one_stage = ""
    for stage in range(len(PORTIONS)):
        scheduler.step()
        after_one_stage = after_one_stage or digest_of(model.module, scheduler)
        train(model, optimizer, seed=10 * stage + rank(), num_steps=1)
    scheduler.check("weights, masks or codes")
    assert scheduler.state.keys() == {"0.weight", "4.weight"}
    return after_one_stage, digest_of(model.module, scheduler)


@pytest.mark.parametrize(("strategy", "world_sizes"), [("pruning", (1, 2, 3, 4)), ("random", (1, 3))])
def test_all_ranks_hold_the_same_bits_and_any_number_of_ranks_decides_alike(
    strategy: str, world_sizes: tuple[int, ...]
) -> None:
    """Properties 4 and 5 of the design."""
    model = make_model(0)
    _, scheduler = make(model, strategy=strategy)
    scheduler.step()
    for world_size in world_sizes:
        outcomes = run_ranks(stages_under_ddp, world_size, strategy)
        assert len(set(outcomes)) == 1, "the same bits on every rank"
        assert outcomes[0][0] == digest_of(model, scheduler), "as one process without a process group decides"


def drift(what: str) -> None:
    model = make_model(0)
    _, scheduler = make(model)
    scheduler.step()
    state = scheduler.state["4.weight"]
    if rank() == 1:
        place = state.frozen.logical_not().nonzero()[0]
        if what == "live weight":
            with torch.no_grad():
                model[4].weight[tuple(place)] += 1e-7
        elif what == "bias":
            model[4].bias.data[0] = -model[4].bias.data[0]
        elif what == "frozen":
            state.frozen[tuple(place)] = True
    scheduler.step()


@pytest.mark.parametrize(
    ("what", "tensor"),
    [
        ("live weight", "4.weight"),
        ("bias", "4.bias"),
        ("frozen", "4.weight"),
    ],
)
def test_a_rank_that_has_drifted_stops_every_rank(what: str, tensor: str) -> None:
    for outcome in rank_outcomes(drift, 3, what):
        assert isinstance(outcome.error, ReplicaMismatchError)
        assert outcome.error.tensor == tensor
        assert outcome.error.ranks == (1,)


def other_weights_applied() -> None:
    """A bit of what rank 1 was told is another when it applies it."""
    model = make_model(0)
    _, scheduler = make(model)
    with pytest.MonkeyPatch.context() as patch:
        if rank() == 1:
            patch.setattr(scheduler_module, "apply", _apply_otherwise)
        scheduler.step()


def _apply_otherwise(weight: Tensor, state: TensorState, update: StageUpdate) -> None:
    apply(weight, state, update)
    weight.data[tuple(state.frozen.nonzero()[0])] *= 2


def test_a_rank_that_applies_a_stage_otherwise_stops_every_rank_at_once() -> None:
    for outcome in rank_outcomes(other_weights_applied, 2):
        assert isinstance(outcome.error, ReplicaMismatchError)
        assert "after stage 1" in str(outcome.error)
        assert outcome.error.ranks == (1,)


def nan_on_rank_0() -> None:
    model = make_model(0)
    _, scheduler = make(model)
    if rank() == 0:
        model[0].weight.data[0] = math.nan
    scheduler.step()


def test_nan_on_rank_0_is_one_error_on_every_rank() -> None:
    for outcome in rank_outcomes(nan_on_rank_0, 2):
        assert isinstance(outcome.error, StageError)
        assert "0.weight: weights are NaN or infinite" in str(outcome.error)


def out_of_memory_on_rank_1() -> str:
    model = make_model(0)
    _, scheduler = make(model)
    before = digest_of(model, scheduler)
    if rank() == 1:

        def decide(*_: Any, **__: Any) -> None:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")

        scheduler_module.decide = decide  # type: ignore[assignment]
    with pytest.raises(StageError) as error:
        scheduler.step()
    assert error.value.rank == 1
    assert (error.value.__cause__ is None) == (rank() != 1)
    assert (scheduler.stage, digest_of(model, scheduler)) == (0, before)
    return str(error.value)


def test_an_error_on_any_rank_reaches_all_ranks_and_nothing_is_changed() -> None:
    (message,) = set(run_ranks(out_of_memory_on_rank_1, 2))
    assert message.startswith("stage 1: '")
    assert message.endswith(".weight': OutOfMemoryError: tried to allocate 2 GiB (rank 1)")


def other_options(what: str) -> None:
    """Rank 1 has another scheduler than rank 0 has; none of them may wait for the other."""
    is_other = rank() == 1
    portions = [1.0] if what == "portions" and is_other else [0.5, 1.0]
    model = make_model(0)
    optimizer, scheduler = make(model, portions, seed=int(what == "seed" and is_other))
    if what == "weight_bits" and is_other:
        optimizer.param_groups[0]["weight_bits"] = 3
    if what == "stage" and not is_other:
        _, alone = make(make_model(1), portions)
        state = alone.state_dict()
        scheduler.load_state_dict({**state, "stage": 2})
    scheduler.step()


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("portions", "INQScheduler.portions"),
        ("seed", "INQScheduler.seed"),
        ("stage", "INQScheduler.stage"),
        ("weight_bits", "0.weight"),
    ],
)
def test_ranks_of_other_options_stop_together_and_name_them(what: str, named: str) -> None:
    for outcome in rank_outcomes(other_options, 2, what):
        assert isinstance(outcome.error, ReplicaMismatchError)
        assert outcome.error.tensor == named
        assert outcome.error.ranks == (1,)


# Groups of ranks


def stages_in_groups(groups: list[list[int]]) -> tuple[str, str]:
    """Digests of what the first rank of this rank's group decides by itself, and of what the group holds."""
    made = [dist.new_group(ranks) for ranks in groups]
    mine = next(index for index, ranks in enumerate(groups) if rank() in ranks)
    alone = make_model(mine)
    own_optimizer, own_scheduler = make(alone, process_group=dist.new_subgroups(1)[0])
    model = make_model(mine)
    if rank() != groups[mine][0]:
        with torch.no_grad():
            model[4].weight += 1
    optimizer, scheduler = make(model, process_group=made[mine])
    for seed in range(len(PORTIONS)):
        for each, by, stages in ((alone, own_optimizer, own_scheduler), (model, optimizer, scheduler)):
            stages.step()
            train(each, by, seed)
    scheduler.check("weights, masks or codes")
    return digest_of(alone, own_scheduler), digest_of(model, scheduler)


@pytest.mark.parametrize("groups", [[[0], [1]], [[0], [1, 2]], [[0, 2], [1]]])
def test_groups_of_ranks_decide_by_themselves(groups: list[list[int]]) -> None:
    world_size = sum(map(len, groups))
    outcomes = run_ranks(stages_in_groups, world_size, groups)
    assert all(alone == held for alone, held in outcomes)
    held_by = {number: held for number, (_, held) in enumerate(outcomes)}
    for ranks in groups:
        assert len({held_by[number] for number in ranks}) == 1, "the same bits on every rank of a group"
    assert len(set(held_by.values())) == len(groups), "and others in each group"


def drift_in_a_group() -> str:
    group = dist.new_group([1, 2])
    model = make_model(0)
    if rank() == 0:
        with pytest.raises(ValueError, match="this process is not in process_group"):
            make(model, process_group=group)
        return ""
    _, scheduler = make(model, process_group=group)
    scheduler.step()
    if rank() == 2:
        model[4].bias.data[0] += 1
    with pytest.raises(ReplicaMismatchError) as error:
        scheduler.step()
    return str(error.value)


def test_a_rank_that_has_drifted_in_a_group_is_named_by_its_number_among_all() -> None:
    messages = run_ranks(drift_in_a_group, 3)
    assert messages[0] == ""
    assert all("'4.bias' on ranks [2] is not" in message for message in messages[1:])


def copies_of_a_group() -> None:
    model = make_model(0)
    _, scheduler = make(model, process_group=dist.new_group([0, 1]))
    copied = copy.deepcopy(scheduler)
    scheduler.step()
    copied.step()
    assert digest_of(nn.Module(), copied) == digest_of(nn.Module(), scheduler)
    with pytest.raises(TypeError, match="ProcessGroup"):  # rather than one that talks to all ranks
        pickle.dumps(scheduler)


def test_a_copy_keeps_its_group() -> None:
    run_ranks(copies_of_a_group, 2)


def gather(model: nn.Module, scheduler: INQScheduler, seed: int) -> inq_ray.Moments:
    images = torch.randn(32, 2, 4, 4, generator=torch.Generator().manual_seed(seed))
    with inq_ray.Moments(model, scheduler.quantized()) as moments, torch.no_grad():
        model.eval()(images)
    model.train()
    return moments


def test_moments_that_cannot_be_right_are_refused() -> None:
    model = make_model(seed=0)
    _, scheduler = make(model, [0.5, 1.0])
    with inq_ray.Moments(model, scheduler.quantized()) as empty:
        pass
    with pytest.raises(ValueError, match="moments contain no image"):
        scheduler.step(empty)
    _, other = make(twin := make_model(seed=0), [1.0])
    with pytest.raises(ValueError, match=r"the moments of '.*' are of another network"):
        scheduler.step(gather(twin, other, seed=0))
    assert scheduler.stage == 0


def test_layers_that_are_never_called_are_rounded_alone() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.layer.weight)

    model = Functional()
    _, scheduler = make(model, [1.0])
    with inq_ray.Moments(model, scheduler.quantized()) as moments:
        model(torch.randn(2, 4))
    assert list(moments.left_out) == ["layer.weight"]
    scheduler.step(moments)
    assert bool(scheduler.state["layer.weight"].frozen.all())


def test_moments_that_are_nan_are_named() -> None:
    model = make_model(seed=0)
    _, scheduler = make(model, [0.5, 1.0])
    moments = gather(model, scheduler, seed=0)
    moments.sums[name := next(iter(moments.sums))].fill_(float("nan"))
    with pytest.raises(StageError, match=f"{name}.*inputs are NaN"):
        scheduler.step(moments)
    assert scheduler.stage == 0


def compensated_stages() -> str:
    """Return a digest of everything after three stages."""
    model = make_model(seed=rank())
    _, scheduler = make(model, [0.5, 0.8, 1.0])
    for _ in range(3):
        scheduler.step(gather(model, scheduler, seed=rank()))
    assert all(bool(state.frozen.all()) for state in scheduler.state.values())
    return summary(digest_tensors({**model.state_dict(), **state_tensors(scheduler.state)}))


def test_moments_are_of_all_ranks_and_live_weights_move_alike_on_all() -> None:
    alone = compensated_stages()
    outcomes = [run_ranks(compensated_stages, world_size) for world_size in (1, 2)]
    for results in outcomes:
        assert len(set(results)) == 1
    assert outcomes[0][0] == alone
    assert outcomes[1][0] != alone, "the second rank's images count too"
    assert run_ranks(compensated_stages, 2) == outcomes[1], "and again gives the same bits"


def test_compensated_stages_change_the_network_s_outputs_less() -> None:
    images = torch.randn(32, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    errors = {}
    for compensates in (False, True):
        model = make_model()
        expected = model.eval()(images).detach()
        _, scheduler = make(model, [0.5, 1.0])
        for _ in range(2):
            scheduler.step(gather(model, scheduler, 0) if compensates else None)
        errors[compensates] = float((model.eval()(images) - expected).detach().square().mean())
    assert errors[True] < 0.7 * errors[False]


def test_frozen_weights_keep_their_bits_and_live_ones_move() -> None:
    model = make_model()
    _, scheduler = make(model, [0.5, 0.8, 1.0])
    scheduler.step()
    before = {name: param.detach().clone() for name, param in scheduler.quantized().items()}
    frozen = {name: state.frozen.clone() for name, state in scheduler.state.items()}
    scheduler.step(gather(model, scheduler, 0))
    for name, param in scheduler.quantized().items():
        assert bits(param[frozen[name]]) == bits(before[name][frozen[name]])
        live = ~scheduler.state[name].frozen
        assert bool((param[live] != before[name][live]).any())
