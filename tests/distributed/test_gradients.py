"""Training with gradients of live weights only, against DDP alone: the same bits on two ranks."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from inq_ray.core.optim.clip import clip_grad_norm_
from inq_ray.core.optim.sgd import SGD
from inq_ray.distributed.gradients import LiveGradients
from inq_ray.distributed.wire import rank, world_size
from inq_ray.models.selection import param_groups
from inq_ray.scheduler import INQScheduler
from tests.ranks import run_ranks

PORTIONS = (0.5, 0.75, 0.875, 1.0)
# Small enough for several buckets: in bytes about 400.
BUCKET_MB = 4e-4


class Case(NamedTuple):
    """How a network is trained.

    Attributes:
        mode: "none" registers no hook, "live" ours, "off" ours with is_on False, "bf16" torch's, "live bf16" ours in
            bf16.
        accumulate: Microbatches of a step.
        is_unused: Whether a layer has no part in the outputs.
        still: Names of parameters that need no gradient.
        clip: Maximum norm of gradients.
        scale: Initial loss scale.
        wraps_again: Whether each stage has a DDP of its own, without tensors that are frozen as a whole.
        layout: Memory format of the network.
    """

    mode: str = "none"
    accumulate: int = 1
    is_unused: bool = False
    still: tuple[str, ...] = ()
    clip: float | None = None
    scale: float | None = None
    wraps_again: bool = False
    layout: torch.memory_format = torch.channels_last


class Network(nn.Module):
    """Convolutions, BatchNorm, a linear layer with bias, and a layer that may have no part in the outputs."""

    def __init__(self, *, is_unused: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 8, 3)
        self.spare = nn.Linear(7, 5) if is_unused else None
        self.last = nn.Linear(8 * 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.second(torch.relu(self.norm(self.first(images))))
        return self.last(torch.relu(hidden).flatten(1))


def wrapped(network: nn.Module, optimizer: SGD, case: Case) -> tuple[DistributedDataParallel, LiveGradients]:
    model = DistributedDataParallel(
        network, gradient_as_bucket_view=True, bucket_cap_mb=BUCKET_MB, find_unused_parameters=case.is_unused
    )
    live = LiveGradients(optimizer, torch.bfloat16 if case.mode == "live bf16" else None)
    live.is_on = case.mode != "off"
    if case.mode != "none":
        model.register_comm_hook(None, bf16_compress_hook if case.mode == "bf16" else live.all_reduce)
    return model, live


def images_of(step: int, part: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * step + 10 * part + rank())
    return torch.randn(5, 3, 6, 6, generator=generator), torch.randint(0, 3, (5,), generator=generator)


def train(case: Case) -> dict[str, Tensor]:
    """Train for two steps before the first and after each stage; return weights and momentum."""
    network = Network(is_unused=case.is_unused).to(memory_format=case.layout)
    for name in case.still:
        network.get_parameter(name).requires_grad_(False)
    optimizer = SGD(param_groups(network, 4), lr=0.05, momentum=0.9, weight_decay=1e-3, fused=True)
    inq = INQScheduler(optimizer, PORTIONS)
    scaler = torch.amp.GradScaler("cpu", enabled=case.scale is not None, init_scale=case.scale or 1.0)
    model, _ = wrapped(network, optimizer, case)
    for stage in range(len(PORTIONS) + 1):
        if stage:
            inq.step()
        if stage and case.wraps_again:
            for name, param in inq.quantized().items():
                param.requires_grad_(name not in case.still and not bool(inq.state[name].frozen.all()))
            model, _ = wrapped(network, optimizer, case)
        for step in range(2 * stage, 2 * stage + 2):
            train_step(model, optimizer, scaler, step, case)
    momentum = {
        f"{name}/momentum": optimizer.state[param]["momentum_buffer"]
        for name, param in network.named_parameters()
        if optimizer.state.get(param, {}).get("momentum_buffer") is not None
    }
    return {name: tensor.detach().clone() for name, tensor in {**dict(network.named_parameters()), **momentum}.items()}


def train_step(
    model: DistributedDataParallel, optimizer: SGD, scaler: torch.amp.GradScaler, step: int, case: Case
) -> None:
    optimizer.zero_grad(set_to_none=True)
    for part in range(case.accumulate):
        images, labels = images_of(step, part)
        with model.no_sync() if part < case.accumulate - 1 else contextlib.nullcontext():
            scaler.scale(nn.functional.cross_entropy(model(images), labels)).backward()
    scaler.unscale_(optimizer)
    if case.clip is not None:
        clip_grad_norm_(optimizer, case.clip)
    scaler.step(optimizer)
    scaler.update()


def train_all(cases: list[Case]) -> list[dict[str, Tensor]]:
    return [train(case) for case in cases]


def is_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


CASES = {
    "plain": Case(),
    "contiguous": Case(layout=torch.contiguous_format),
    "accumulated": Case(accumulate=3),
    "an unused layer": Case(is_unused=True),
    "a first layer that is not trained": Case(still=("first.weight",)),
    "clipped": Case(clip=0.1),
    "scaled": Case(scale=1024.0),
    "wrapped again at each stage": Case(wraps_again=True, accumulate=2, clip=0.1, scale=256.0),
}


@pytest.fixture(scope="module")
def on_two_ranks() -> dict[str, dict[str, list[dict[str, Tensor]]]]:
    """Results of all cases by mode, of each rank."""
    cases = [case._replace(mode=mode) for case in CASES.values() for mode in ("none", "live")]
    first, second = run_ranks(train_all, 2, cases)
    pairs = iter(zip(first, second, strict=True))
    return {name: {mode: list(next(pairs)) for mode in ("none", "live")} for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_have_the_bits_of_ddp_alone(name: str, on_two_ranks: Any) -> None:
    found = on_two_ranks[name]
    assert is_same(*found["live"])
    assert is_same(found["live"][0], found["none"][0])


def test_the_cases_differ(on_two_ranks: Any) -> None:
    plain = on_two_ranks["plain"]["live"][0]
    same = [name for name in CASES if is_same(plain, on_two_ranks[name]["live"][0])]
    assert same == ["plain", "scaled"], "a scale that is a power of two changes no bit"


@pytest.mark.parametrize("size", [3, 4])
def test_more_ranks_agree_and_repeat_their_bits(size: int) -> None:
    case = Case(mode="live", accumulate=2, clip=0.1)
    runs = run_ranks(train_all, size, [case, case, Case(mode="off"), Case()])
    for once, again, off, none in runs:
        assert is_same(once, runs[0][0])
        assert is_same(again, once)
        assert is_same(off, none)


def exact_gradients(mode: str) -> list[list[Tensor]]:
    """Return the gradients after each stage of a network in which all sums are exact, in any order."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 4, 3))
    for param in network.parameters():
        param.data = torch.randint(-4, 5, param.shape, generator=generator) / 4
    optimizer = SGD(param_groups(network, 3), lr=0.05)
    inq = INQScheduler(optimizer, PORTIONS)
    model, _ = wrapped(network, optimizer, Case(mode=mode))
    images = torch.randint(-2, 3, (4, 2, 4, 4), generator=generator.manual_seed(rank())).float()
    gradients = []
    for _ in PORTIONS:
        inq.step()
        for _ in range(2):
            network.zero_grad()
            (model(images).sum() * world_size()).backward()
        grads = [param.grad for param in network.parameters() if param.grad is not None]
        if mode == "none":
            grads = [torch.where(optimizer.frozen(param), 0.0, param.grad) for param in network.parameters()]
        gradients.append([grad.clone() for grad in grads])
    return gradients


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_gradient_of_a_frozen_weight_is_0_and_others_are_as_without(size: int) -> None:
    live, without = run_ranks(exact_gradients, size, "live"), run_ranks(exact_gradients, size, "none")
    for of_rank, of_rank_without in zip(live, without, strict=True):
        for stage, stage_without in zip(of_rank, of_rank_without, strict=True):
            assert [grad.tolist() for grad in stage] == [grad.tolist() for grad in stage_without]
            assert all(bool(grad.any()) for grad in stage[1::2]), "biases have gradients to the end"


def train_compressed() -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    return train(Case(mode="live bf16")), train(Case(mode="bf16")), train(Case())


def test_in_bf16_two_ranks_have_the_bits_of_torchs_hook() -> None:
    for live, dense, exact in run_ranks(train_compressed, 2):
        assert is_same(live, dense)
        assert not is_same(live, exact)


@contextlib.contextmanager
def counted_elements() -> Iterator[list[int]]:
    """Count what all_reduce is given."""
    counts: list[int] = []
    all_reduce = dist.all_reduce

    def counting(tensor: Tensor, *args: Any, **options: Any) -> Any:
        counts.append(tensor.numel())
        return all_reduce(tensor, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", counting)
        yield counts


def sent_and_made() -> tuple[list[int], list[int], bool]:
    """Return the elements that a step sends after each stage, how often positions are made, and if buckets changed."""
    network = Network(is_unused=False)
    optimizer = SGD(param_groups(network, 4), lr=0.05)
    inq = INQScheduler(optimizer, PORTIONS)
    model, live = wrapped(network, optimizer, Case(mode="live"))
    made: list[int] = []
    buckets: set[tuple[int, tuple[int, ...]]] = set()
    found = LiveGradients._found

    def finding(self: LiveGradients, buffer: Tensor, params: list[Tensor]) -> Tensor | None:
        made.append(len(params))
        return found(self, buffer, params)

    live._found = finding.__get__(live)  # type: ignore[method-assign]
    sent = []
    for _ in PORTIONS:
        inq.step()
        made.append(0)
        for _ in range(4):
            with counted_elements() as counts:
                model(images_of(0, 0)[0]).sum().backward()
            buckets |= {(index, tuple(map(id, known.params))) for index, known in live._buckets.items()}
        sent.append(sum(counts))
    has_rebuilt = len(buckets) > len({index for index, _ in buckets})
    return sent, made, has_rebuilt


def test_live_entries_are_sent_and_positions_are_made_once_a_stage() -> None:
    sizes = [6 * 3 * 9, 8 * 6 * 9, 32 * 3]
    never = 6 + 6 + 8 + 3
    for sent, made, has_rebuilt in run_ranks(sent_and_made, 2):
        assert sent == [never + sum(size - round(portion * size) for size in sizes) for portion in PORTIONS]
        assert has_rebuilt
        stages = [list(map(int, stage.split())) for stage in " ".join(map(str, made)).split("0")[1:]]
        assert len({tuple(sorted(stage)) for stage in stages[1:]}) == 1, "one for each bucket"
        assert sum(stages[1]) == 7, "parameters of all buckets"


def test_an_optimizer_without_masks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be an inq_ray\.SGD"):
        LiveGradients(torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1))
