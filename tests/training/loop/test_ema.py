import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from inq_ray.core.codebook import Codebook
from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.wire import rank
from inq_ray.models.selection import param_groups
from inq_ray.scheduler import INQScheduler
from inq_ray.training.loop.ema import Ema, decay_of_horizon
from tests.core.weights import bits
from tests.ranks import run_ranks

DECAYS = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.999]), st.floats(0.0, 1.0, exclude_max=True))


def make_network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 5))


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 3, 6, 6, generator=generator)
    labels = torch.randint(0, 5, (8,), generator=generator)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()


def state_bits(model: nn.Module) -> dict[str, Any]:
    return {
        name: bits(tensor) if tensor.is_floating_point() else tensor.tolist()
        for name, tensor in model.state_dict().items()
    }


@settings(max_examples=60)
@given(DECAYS, st.sampled_from([1, 5, 300]))
def test_the_average_of_equal_levels_is_the_level_whatever_the_decay(decay: float, length: int) -> None:
    levels = Codebook(num_bits=8, n_1=127).decode(torch.arange(256, dtype=torch.uint8))
    low = Codebook(num_bits=8, n_1=-63).decode(torch.arange(256, dtype=torch.uint8))
    frozen = torch.cat([levels[~levels.isnan()], low[~low.isnan()]])[-length:]
    assert not bool((frozen.view(torch.int32) == -(2**31)).any()), "no level is -0.0"
    model = nn.ParameterList([nn.Parameter(frozen.clone())])
    ema = Ema(model, decay)
    for _ in range(3):
        ema.update()
    assert bits(ema.state_dict()["0"]) == bits(frozen)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.75, 0.99])
def test_it_averages_as_torch_averages(decay: float) -> None:
    model = make_network()
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    reference.update_parameters(model)  # the first one copies
    ema = Ema(model, decay)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(5):
        train_step(model, optimizer, step)
        ema.update()
        reference.update_parameters(model)
    theirs = reference.module.state_dict()
    ours = ema.state_dict()
    assert set(theirs) - set(ours) == {"1.num_batches_tracked"}
    for name, average in ours.items():
        torch.testing.assert_close(average, theirs[name], rtol=1e-6, atol=1e-7)
        assert not average.equal(dict(model.state_dict())[name]) or decay == 0


@settings(max_examples=20)
@given(DECAYS, st.sampled_from([0.5, 0.9]), st.integers(0, 3))
def test_frozen_weights_keep_their_bits_and_live_ones_are_averaged(decay: float, portion: float, seed: int) -> None:
    model = make_network(seed)
    optimizer = SGD(param_groups(model, 4), lr=0.1, momentum=0.9, weight_decay=1e-2)
    inq = INQScheduler(optimizer, (portion, 1.0))
    inq.step()
    before = {name: param.detach().clone() for name, param in inq.quantized().items()}
    ema = Ema(model, decay)
    for step in range(4):
        train_step(model, optimizer, step)
        ema.update()
    own = state_bits(model)
    with ema.swapped():
        check_frozen(inq, before)
    assert state_bits(model) == own
    ema.store()
    check_frozen(inq, before)
    if 0.25 <= decay <= 0.999:
        assert state_bits(model) != own
    inq.step()
    ema.reset()
    quantized = state_bits(model)
    ema.update()
    ema.store()
    assert state_bits(model) == quantized, "the average of a network that stands still is that network"


def check_frozen(inq: INQScheduler, before: dict[str, Tensor]) -> None:
    for name, param in inq.quantized().items():
        frozen = inq.state[name].frozen
        assert bits(param[frozen]) == bits(before[name][frozen]), name


def test_within_the_block_the_network_is_its_average_and_an_error_gives_it_back() -> None:
    model = make_network()
    ema = Ema(model, 0.5)
    optimizer = SGD(model.parameters(), lr=0.1)
    train_step(model, optimizer, 0)
    own, batches = state_bits(model), model[1].num_batches_tracked
    ema.update()

    def validate() -> None:
        with ema.swapped():
            assert {name: bits(average) for name, average in ema.state_dict().items()}.items() <= state_bits(
                model
            ).items()
            assert state_bits(model) != own
            raise LookupError

    with pytest.raises(LookupError):
        validate()
    assert state_bits(model) == own
    assert model[1].num_batches_tracked is batches


def test_what_needs_no_gradient_is_not_averaged() -> None:
    model = make_network()
    model[0].weight.requires_grad_(False)
    ema = Ema(model, 0.9)
    assert "0.weight" not in ema.state_dict()
    assert {"0.bias", "1.running_mean", "4.weight"} < ema.state_dict().keys()
    assert "1.num_batches_tracked" not in ema.state_dict()
    model[0].weight.requires_grad_(True)
    ema.reset()
    assert "0.weight" in ema.state_dict()


def test_shared_weights_and_wrappers_have_the_names_of_the_network_inside() -> None:
    model = make_network()
    tied = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    tied["b"].weight = tied["a"].weight
    assert list(Ema(tied, 0.9).state_dict()) == [name for name, _ in tied.named_parameters()]
    shared = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])
    shared[1].register_buffer("running_mean", shared[0].running_mean)
    assert "1.running_mean" not in Ema(shared, 0.9).state_dict()
    assert Ema(nn.DataParallel(model), 0.9).state_dict().keys() == Ema(model, 0.9).state_dict().keys()
    ema = Ema(tied, 0.9)
    with torch.no_grad():
        tied["a"].weight.fill_(1.0)
    ema.update()
    expected = bits(ema.state_dict()["a.weight"])
    ema.store()
    assert bits(tied["a"].weight) == bits(tied["b"].weight) == expected


def test_weights_of_fewer_bits_are_averaged_in_float32() -> None:
    model = nn.Linear(4, 4).to(torch.bfloat16)
    own = state_bits(model)
    ema = Ema(model, 0.999)
    assert {average.dtype for average in ema.state_dict().values()} == {torch.float32}
    ema.update()
    with ema.swapped():
        assert state_bits(model) == own
    with torch.no_grad():
        model.weight.add_(1.0)
    for _ in range(2):
        ema.update()
    assert math.isclose(
        float((ema.state_dict()["weight"] - model.weight.detach().float()).abs().max()), 0.998, rel_tol=1e-2
    )


def test_it_goes_on_from_saved_averages() -> None:
    model = make_network()
    optimizer = SGD(model.parameters(), lr=0.1)
    ema = Ema(model, 0.9)
    train_step(model, optimizer, 0)
    ema.update()
    saved = ema.state_dict()
    other = Ema(model, 0.9)
    other.load_state_dict(saved)
    for averages in (ema, other):
        averages.update()
    assert {name: bits(tensor) for name, tensor in other.state_dict().items()} == {
        name: bits(tensor) for name, tensor in ema.state_dict().items()
    }
    assert saved["0.weight"].data_ptr() != ema.state_dict()["0.weight"].data_ptr()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda saved: saved.pop("0.bias"), "0.bias"),
        (lambda saved: saved.update({"new": torch.ones(1)}), "new"),
        (lambda saved: saved.update({"0.bias": torch.ones(3)}), r"0.bias has shape \(3,\)"),
    ],
)
def test_averages_of_another_network_are_refused(change: Any, said: str) -> None:
    ema = Ema(make_network(), 0.9)
    before = {name: bits(average) for name, average in ema.state_dict().items()}
    saved = {name: average + 1 for name, average in ema.state_dict().items()}
    change(saved)
    with pytest.raises(ValueError, match=said):
        ema.load_state_dict(saved)
    assert {name: bits(average) for name, average in ema.state_dict().items()} == before


@settings(max_examples=60)
@given(st.floats(0.0, 2000.0))
def test_a_reach_is_the_mean_age_of_what_is_averaged(reach: float) -> None:
    decay = decay_of_horizon(reach)
    ages = torch.arange(200_000, dtype=torch.float64)
    mean = float(((1 - decay) * decay**ages * (ages + 1)).sum())
    assert mean == pytest.approx(max(1.0, reach), rel=1e-6)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0, math.nan])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        Ema(make_network(), decay)


def average_on_ranks() -> tuple[dict[str, Any], dict[str, Any], bool]:
    """BatchNorm's statistics are each rank's own; the averages in the model are rank 0's."""
    model = make_network()
    ema = Ema(model, 0.5)
    with torch.no_grad():
        model[1].running_mean.fill_(rank() + 1.0)
    ema.update()
    own = state_bits(model)
    with ema.swapped():
        within = state_bits(model)
    returned = state_bits(model) == own
    ema.store()
    return within, state_bits(model), returned


@pytest.mark.parametrize("size", [1, 2, 3])
def test_all_ranks_end_alike(size: int) -> None:
    answers = run_ranks(average_on_ranks, size)
    assert all(answer == answers[0] for answer in answers)
    within, stored, returned = answers[0]
    assert returned
    assert within == stored
    assert within["1.running_mean"] == bits(torch.full((8,), 0.5))
