"""INQScheduler freezes what is the model's, and what the optimizer has frozen; else it refuses and says why."""

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.nn.utils.prune import l1_unstructured

import inq_ray
from inq_ray.distributed.wire import rank
from inq_ray.scheduler import INQScheduler
from tests.ranks import rank_outcomes


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def make(model: nn.Module, /, **options: Any) -> tuple[inq_ray.SGD, INQScheduler]:
    optimizer = inq_ray.SGD(inq_ray.param_groups(model, 4), lr=0.1, momentum=0.9)
    return optimizer, INQScheduler(optimizer, [0.5, 1.0], **options)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int = 2) -> None:
    for step in range(num_steps):
        optimizer.zero_grad()
        inputs = torch.randn(8, 8, generator=torch.Generator().manual_seed(step))
        model(inputs).pow(2).mean().backward()
        optimizer.step()


def assign(model: nn.Module) -> None:
    model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, assign=True)


def replace_head(model: nn.Module) -> None:
    model[2] = nn.Linear(16, 10)  # type: ignore[operator]


def replace_parameter(model: nn.Module) -> None:
    model.get_submodule("0").weight = nn.Parameter(torch.zeros(16, 8))


def convert(model: nn.Module) -> None:
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    model.double()


def shard(model: nn.Module) -> None:
    """What fully_shard leaves behind."""
    layer = model.get_submodule("0")
    layer.weight = nn.Parameter(type("DTensor", (Tensor,), {})(layer.weight.detach()))  # type: ignore[operator]


def parametrize(model: nn.Module) -> None:
    nn.utils.parametrize.register_parametrization(model.get_submodule("2"), "weight", nn.Tanh())


def prune(model: nn.Module) -> None:
    l1_unstructured(model.get_submodule("0"), "weight", 0.5)


def normalize(model: nn.Module) -> None:
    nn.utils.spectral_norm(model.get_submodule("2"))


CHANGES = {
    "assign": assign,
    "head": replace_head,
    "parameter": replace_parameter,
    "dtype": convert,
    "shard": shard,
    "parametrize": parametrize,
    "prune": prune,
    "spectral_norm": normalize,
    "meta": lambda model: model.to("meta"),
}


@pytest.fixture(autouse=True)
def conversion_as_before() -> Iterator[None]:
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("is_given", [True, False])
def test_parameters_that_are_no_longer_the_models_are_refused(
    change: Callable[[nn.Module], None], is_given: bool
) -> None:
    model = network()
    _, scheduler = make(model, model=model if is_given else None)
    scheduler.step()
    saved = scheduler.state_dict()
    change(model)
    before = {name: state.num_frozen for name, state in scheduler.state.items()}
    for act in (scheduler.step, lambda: scheduler.load_state_dict(saved)):
        with pytest.raises(
            ValueError, match=r"'[02]\.weight' of the optimizer is no longer the model's: .*param_groups"
        ):
            act()
    assert scheduler.stage == 1
    assert before == {name: state.num_frozen for name, state in scheduler.state.items()}


def test_what_happened_is_said() -> None:
    for change, what in ((replace_head, r"shape \[10, 16\] in place of \[4, 16\]"), (convert, "dtype torch.float64")):
        model = network()
        _, scheduler = make(model)
        change(model)
        with pytest.raises(ValueError, match=what) as error:
            scheduler.step()
        assert len(str(error.value)) <= 300


def test_ways_to_hold_a_model_that_are_no_change() -> None:
    model = network()
    _, scheduler = make(nn.DataParallel(torch.compile(model)))  # type: ignore[arg-type]
    model[0] = torch.compile(model[0])
    model.load_state_dict(network().state_dict(), strict=False)
    model.double().float().requires_grad_(False)
    scheduler.step()
    whole = nn.Sequential(model)
    whole.to(torch.float32)
    scheduler.step()


def test_a_model_that_is_not_the_optimizers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'0\.weight' of the optimizer is not a parameter of the model"):
        make(network(), model=network())


def test_a_container_of_the_moment_may_go_and_a_model_that_is_gone_is_said() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    _, scheduler = make(nn.ModuleList([first, second]))
    scheduler.step()
    second.weight = nn.Parameter(torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"'1\.weight' of the optimizer is no longer the model's"):
        scheduler.step()
    del first, second
    with pytest.warns(UserWarning, match=r"model with the optimizer's '0\.weight' no longer exists"):
        scheduler.step()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])  # noqa: S301
def test_copies_go_on_by_themselves(duplicate: Callable[[Any], Any]) -> None:
    model = network()
    _, scheduler = make(model)
    scheduler.step()
    copied_model, copied = duplicate((model, scheduler))
    train(copied_model, copied.optimizer)
    copied.step()
    for name, weight in inq_ray.float_state(copied).items():
        assert torch.equal(copied_model.get_parameter(name), weight)
    assert scheduler.stage == 1


def one_rank_replaces_its_head() -> None:
    model = network()
    _, scheduler = make(model)
    scheduler.step()
    if rank() == 1:
        replace_head(model)
    scheduler.step()


def test_a_change_on_one_rank_stops_every_rank() -> None:
    for outcome in rank_outcomes(one_rank_replaces_its_head, 2):
        assert isinstance(outcome.error, inq_ray.ReplicaMismatchError)
        assert outcome.error.tensor == "2.weight"


def reloaded(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_optimizer_that_is_restored_alone_keeps_what_is_frozen(prefix: str) -> None:
    model = network()
    optimizer, scheduler = make(model)
    scheduler.step()
    train(model, optimizer)
    state = reloaded(optimizer.state_dict())
    for group in state["param_groups"]:
        group["param_names"] = [prefix + name for name in group["param_names"]]
    other = network()
    other.load_state_dict(model.state_dict())
    restored, fresh = make(other)
    restored.load_state_dict(state)
    for each, its_optimizer in ((model, optimizer), (other, restored)):
        train(each, its_optimizer)
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    with pytest.raises(
        ValueError, match=r"64 frozen weights of '0\.weight', INQScheduler has 0: .*INQScheduler\.state_dict"
    ):
        fresh.step()
    fresh.load_state_dict(scheduler.state_dict())
    for each in (scheduler, fresh):
        each.step()
    assert all(map(torch.equal, model.parameters(), other.parameters()))


@pytest.mark.parametrize("is_flat", [False, True])
def test_state_dicts_by_name_of_torchs_distributed_checkpoints(is_flat: bool) -> None:
    options = StateDictOptions(flatten_optimizer_state_dict=is_flat)
    model, other = network(), network()
    (optimizer, scheduler), (restored, restored_scheduler) = make(model), make(other)
    scheduler.step()
    train(model, optimizer)
    weights, state = copy.deepcopy(get_state_dict(model, optimizer, options=options))
    set_state_dict(other, restored, model_state_dict=weights, optim_state_dict=state, options=options)
    restored_scheduler.load_state_dict(scheduler.state_dict())
    for each, its_optimizer, stages in ((model, optimizer, scheduler), (other, restored, restored_scheduler)):
        train(each, its_optimizer)
        stages.step()
    assert all(map(torch.equal, model.parameters(), other.parameters()))


def test_states_of_two_stages_do_not_fit() -> None:
    model = network()
    optimizer, scheduler = make(model)
    scheduler.step()
    first = optimizer.state_dict(), scheduler.state_dict()
    scheduler.step()
    optimizer.load_state_dict(first[0])
    with pytest.raises(ValueError, match="from different stages"):
        scheduler.load_state_dict({**scheduler.state_dict()})
    with pytest.raises(ValueError, match="from different stages"):
        scheduler.step()
    scheduler.load_state_dict(first[1])
    assert scheduler.stage == 1
    scheduler.step()


def test_repr_shows_how_far_it_is() -> None:
    optimizer, scheduler = make(model := network())
    scheduler.step()
    assert "stage 1 of 2, portions [0.5, 1.0]" in repr(scheduler)
    assert "96 of 192 weights frozen (50.0%)" in repr(scheduler)
    assert "frozen: 96 of 192 weights with weight_bits (50.0%)" in repr(optimizer)
    assert model is not None


class Wrapped:
    def __init__(self, **inner: Any) -> None:
        self.__dict__.update(inner)


def test_wrapped_optimizers_are_taken() -> None:
    model = network()
    optimizer = inq_ray.SGD(inq_ray.param_groups(model, 4), lr=0.1)
    scheduler = INQScheduler(Wrapped(optimizer=Wrapped(optimizer=optimizer)), [1.0])  # type: ignore[arg-type]
    assert scheduler.optimizer is optimizer
    for other in (Wrapped(), Wrapped(optimizer=torch.optim.SGD(model.parameters())), None):
        with pytest.raises(ValueError, match=r"must be an inq_ray\.SGD.*'optimizer'; got"):
            INQScheduler(other, [1.0])  # type: ignore[arg-type]


def test_float_state_takes_a_scheduler_and_names_what_it_takes() -> None:
    model = network()
    _, scheduler = make(model)
    scheduler.step()
    scheduler.step()
    assert inq_ray.float_state(scheduler).keys() == inq_ray.float_state(scheduler.state).keys()
    for wrong in (scheduler.state_dict(), model.state_dict(), model, None, 3):
        with pytest.raises(ValueError, match=r"scheduler\.state"):
            inq_ray.float_state(wrong)  # type: ignore[arg-type]


# What wrote to frozen weights, whose memory it is, and whose state


def load_older_weights(model: nn.Module) -> None:
    model.load_state_dict(network().state_dict())


def average(model: nn.Module) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(network())
    averaged.update_parameters(model)
    averaged.update_parameters(network())
    model.load_state_dict(averaged.module.state_dict())


def train_by_another_optimizer(model: nn.Module) -> None:
    train(model, torch.optim.AdamW(model.parameters()))


def clamp(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.clamp_(-0.01, 0.01)


def by_a_new_optimizer(model: nn.Module) -> None:
    train(model, inq_ray.SGD(inq_ray.param_groups(model, 4), lr=0.1))


WRITERS = [load_older_weights, average, train_by_another_optimizer, clamp, by_a_new_optimizer]


@pytest.mark.parametrize("write", WRITERS)
def test_what_else_wrote_to_frozen_weights_is_said_and_undone(write: Callable[[nn.Module], None]) -> None:
    model = network()
    optimizer, scheduler = make(model)
    scheduler.step()
    train(model, optimizer)
    assert scheduler.changed_weights() == {}
    write(model)
    changed = scheduler.changed_weights()
    assert set(changed) == {"0.weight", "2.weight"}
    with pytest.warns(UserWarning, match=rf"^{sum(changed.values())} frozen weights, first in '0\.weight'") as caught:
        scheduler.step()
    assert len(str(caught[0].message)) <= 300
    assert scheduler.changed_weights() == {}
    write(model)
    with pytest.warns(
        UserWarning, match=r"the network has other weights than these: .* first in '0\.weight'"
    ) as caught:
        weights = inq_ray.float_state(scheduler)
    assert len(str(caught[0].message)) <= 300
    model.load_state_dict(weights, strict=False)
    assert scheduler.changed_weights() == {}


def test_copies_of_model_and_optimizer_go_on_and_one_of_the_optimizer_alone_is_said() -> None:
    model = network()
    optimizer = inq_ray.SGD(inq_ray.param_groups(model, 4), lr=0.1)
    copied_model, copied = copy.deepcopy((model, optimizer))
    INQScheduler(copied, [1.0], model=copied_model).step()
    assert not torch.equal(copied_model[0].weight, model[0].weight)
    with pytest.warns(UserWarning, match=r"optimizer is a copy .* create INQScheduler\(\.\.\., model=model\)"):
        INQScheduler(copy.deepcopy(optimizer), [1.0])


def test_two_parameters_in_the_same_memory_are_refused_and_parts_of_one_buffer_are_not() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = nn.Parameter(model[0].weight.data)
    with pytest.raises(ValueError, match=r"'0\.weight' and '1\.weight' are two parameters in the same memory"):
        make(model)
    buffer = torch.randn(128)
    whole = nn.Parameter(buffer)  # and two parts of it, of which the later one alone is quantized
    model[0].weight, model[1].weight = nn.Parameter(buffer[:64].view(8, 8)), nn.Parameter(buffer[64:].view(8, 8))
    groups = [
        {"params": [("whole", whole), ("0", model[0].weight)]},
        {"params": [("1", model[1].weight)], "weight_bits": 4},
    ]
    with pytest.raises(ValueError, match="'whole' and '1' are two parameters in the same memory"):
        INQScheduler(inq_ray.SGD(groups, lr=0.1), [1.0])
    model[0].weight, model[1].weight = (nn.Parameter(part.view(8, 8)) for part in buffer.split(64))
    make(model)[1].step()
    model[1].weight = model[0].weight
    make(model)[1].step()


def test_tensors_without_values_or_in_parts_are_refused() -> None:
    with torch.device("meta"):
        model = network()
    with pytest.raises(ValueError, match=r"'0\.weight' is on the meta device, without values"):
        make(model)
    shard(model := network())
    with pytest.raises(ValueError, match=r"'0\.weight' is a DTensor of layout torch\.strided"):
        make(model)
    with pytest.raises(ValueError, match=r"model must be a torch\.nn\.Module, got int"):
        make(network(), model=3)


def test_float16_is_refused_before_anything_happens_and_the_line_that_is_named_works() -> None:
    model = network().half()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"0\.weight: weights of torch\.float16 .* by model\.float\(\)") as error:
        make(model)
    assert len(str(error.value)) <= 300
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.float()
    optimizer, scheduler = make(model)
    scheduler.step()
    held = {name: param.detach()[scheduler.state[name].frozen].clone() for name, param in scheduler.quantized().items()}
    with torch.autocast("cpu", dtype=torch.float16):
        train(model, optimizer)
    for name, param in scheduler.quantized().items():
        assert torch.equal(param.detach()[scheduler.state[name].frozen], held[name])


def test_states_of_others_are_refused_with_what_to_do() -> None:
    """INQ-pytorch keeps masks 'Ts' in the optimizer's groups, and no codes in its scheduler."""
    model = network()
    optimizer, scheduler = make(model)
    theirs = optimizer.state_dict()
    for group in theirs["param_groups"]:
        group["Ts"] = [torch.ones(1) for _ in group["params"]]
    with pytest.raises(ValueError, match=r"INQ-pytorch .*load only the model's weights, and begin INQ again"):
        optimizer.load_state_dict(theirs)
    with pytest.raises(ValueError, match=r"INQ-pytorch's .*load only the model's weights, and begin INQ again"):
        scheduler.load_state_dict({"iterative_steps": [0.5, 1.0], "strategy": "pruning", "idx": 1})
    with pytest.raises(ValueError, match=r"got that of an optimizer: load it with optimizer\.load_state_dict"):
        scheduler.load_state_dict(theirs)


def test_masks_follow_a_model_that_was_moved() -> None:
    model = network()
    optimizer, scheduler = make(model)
    scheduler.step()
    weight = model[0].weight
    mask = optimizer._live[weight]
    assert mask is not None
    optimizer._live[weight] = mask.to("meta")  # as if on another device
    optimizer.zero_grad()
    model(torch.ones(2, 8)).sum().backward()
    with pytest.raises(NotImplementedError, match="meta"):  # it is copied, which meta tensors cannot be
        optimizer.step()
