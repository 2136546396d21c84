"""Graphs without a GPU: a stand-in records the operations of a call, and repeats them on the same tensors."""

import dataclasses
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim.lr_scheduler import LambdaLR
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inq_ray.core.optim import group_step
from inq_ray.core.optim.masked_step import Weights, packs
from inq_ray.core.optim.sgd import SGD
from inq_ray.training.config import TrainingConfig
from inq_ray.training.loop.bad_images import BadImages
from inq_ray.training.loop.batches import TrainBatches
from inq_ray.training.loop.cuda_graph import CudaGraph, TensorFunction, graph_line, has_whole_step, state_of_step
from inq_ray.training.loop.device_rates import DeviceRates
from inq_ray.training.loop.ema import Ema
from inq_ray.training.loop.non_finite import DivergedError
from inq_ray.training.loop.trainer import EpochState, Trainer
from tests.training.toys import CLASSES, toy_task

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)

# What waits for a GPU: its result, or the size of its result, is needed on the CPU.
WAITING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
}


class Recorder(TorchDispatchMode):
    """Records operations with the tensors and numbers that they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in WAITING, f"{func} waits for the GPU"
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, before in self.calls:
            result = func(*args, **kwargs)
            for old, new in zip(tree_leaves(before), tree_leaves(result), strict=True):
                if isinstance(old, Tensor) and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.detach().copy_(new)


class GpuRecorder(Recorder):
    """Records operations on tensors without values. Torch's fused kernel needs values, so it is left out."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten._fused_sgd_.tensor_lr:
            return super().__torch_dispatch__(func, types, args, kwargs)
        self.calls.append((func, args, kwargs, None))
        return None


class CpuGraph(CudaGraph):
    """Like a CUDA graph, on the CPU: recording leaves all tensors as they are, replays repeat it.

    Args:
        tensors: Returns the tensors that a step changes.
    """

    def __init__(
        self, model: nn.Module, state: Callable[[], Hashable], tensors: Callable[[], Sequence[Tensor]] = list
    ) -> None:
        super().__init__(model, state)
        self._tensors = tensors
        self.did: list[str] = []

    def _aside(self, function: TensorFunction, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.did.append("aside")
        return function(*inputs)

    @torch.no_grad()
    def _record(
        self, function: TensorFunction, inputs: tuple[Tensor, ...]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        self.did.append("record")
        tensors = self._tensors()
        before = [tensor.clone() for tensor in tensors]
        with torch.random.fork_rng(devices=[]), Recorder() as recorder, torch.enable_grad():
            outputs = function(*inputs)
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)

        def replay() -> None:
            self.did.append("replay")
            recorder.replay()

        return replay, outputs


def network() -> nn.Module:
    torch.manual_seed(0)
    convolution = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2))
    return nn.Sequential(convolution, nn.Linear(4 * 4 * 4, CLASSES))


def float32(rate: float) -> float:
    return torch.tensor(rate, dtype=torch.float32).item()


def make_trainer(*, has_graph: bool, decay: float | None = None, **training: Any) -> Trainer:
    """Return a trainer whose rates are float32 numbers, as they are on a GPU."""
    config = TrainingConfig(lr=1.0, batch_size=8, **training)
    task = toy_task(50, network())
    model = task.model
    optimizer = SGD(model.parameters(), lr=config.lr, momentum=0.9, weight_decay=1e-3, nesterov=True, fused=True)
    freeze(optimizer, 0.5)
    ema = None if decay is None else Ema(model, decay)

    def tensors() -> list[Tensor]:
        momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
        return [*model.parameters(), *model.buffers(), *momenta, *([] if ema is None else ema.averages)]

    return Trainer(
        batches=TrainBatches(task=task, training=config, bad_images=BadImages(0)),
        model=model,
        optimizer=optimizer,
        scheduler=LambdaLR(optimizer, lambda step: float32(0.05 / (1 + step))),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        ema=ema,
        graph=CpuGraph(model, lambda: state_of_step(model, optimizer, ema), tensors) if has_graph else None,
        rates=DeviceRates(optimizer, CPU) if has_graph and config.on_nan == "stop" else None,
    )


def freeze(optimizer: SGD, portion: float) -> None:
    generator = torch.Generator().manual_seed(7)
    for param in optimizer.param_groups[0]["params"]:
        if param.ndim > 1:
            optimizer.freeze(param, torch.rand(param.shape, generator=generator) < portion)


def ends(trainer: Trainer) -> list[Tensor]:
    momenta = [state["momentum_buffer"] for state in trainer.optimizer.state.values()]
    averages = [] if trainer.ema is None else trainer.ema.averages
    return [tensor.clone() for tensor in (*trainer.model.parameters(), *trainer.model.buffers(), *momenta, *averages)]


def did(trainer: Trainer) -> list[str]:
    assert isinstance(trainer.graph, CpuGraph)
    return trainer.graph.did


def assert_same_bits(one: list[Tensor], other: list[Tensor]) -> None:
    assert len(one) == len(other)
    assert all(mine.equal(yours) for mine, yours in zip(one, other, strict=True))


def step_as_on_gpus(
    group: dict[str, Any], all_live: Sequence[Weights], partly_frozen: Sequence[Weights]
) -> dict[Tensor, Tensor]:
    created = group_step._torch_step(group, all_live, foreach=None, fused=True)
    for pack in packs(partly_frozen):
        created |= group_step._torch_step(group, pack, foreach=None, fused=True)
    return created


@pytest.mark.parametrize("as_on_gpus", [False, True])
@pytest.mark.parametrize(
    "training",
    [
        {},
        {"clip_grad_norm": 0.3, "decay": 0.9},
        {"mixup": 0.2, "label_smoothing": 0.1},
        {"on_nan": "skip", "clip_grad_norm": 0.3, "decay": 0.9},
    ],
    ids=str,
)
def test_steps_of_a_graph_have_the_bits_of_steps_without_it(
    training: dict[str, Any], as_on_gpus: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if as_on_gpus:
        monkeypatch.setattr(group_step, "_step_on_cpu", step_as_on_gpus)
    seen = []
    for has_graph in (False, True):
        trainer = make_trainer(has_graph=has_graph, **training)
        losses = [trainer.train_epoch(epoch, lambda _: None).loss for epoch in range(2)]
        seen.append([*ends(trainer), torch.tensor(losses)])
        if has_graph:
            assert did(trainer) == ["aside"] * 3 + ["record"] + ["replay"] * 9
    assert_same_bits(*seen)


def test_a_rate_is_not_recorded_as_a_number() -> None:
    trainer = make_trainer(has_graph=True)
    trainer.train_epoch(0, lambda _: None)
    weight = next(trainer.model.parameters())
    trainer.scheduler.lr_lambdas[0] = lambda _: 0.0
    trainer.scheduler.step()
    before = weight.detach().clone()
    trainer.train_epoch(1, lambda _: None)
    assert weight.equal(before)
    assert did(trainer)[-6:] == ["replay"] * 6


def freeze_more(trainer: Trainer) -> None:
    freeze(trainer.optimizer, 0.8)


def load_momentum(trainer: Trainer) -> None:
    trainer.optimizer.load_state_dict(trainer.optimizer.state_dict())
    for state in trainer.optimizer.state.values():
        state["momentum_buffer"] = 2 * state["momentum_buffer"]


def change_decay(trainer: Trainer) -> None:
    trainer.optimizer.param_groups[0]["weight_decay"] = 0.1


def begin_averages_again(trainer: Trainer) -> None:
    assert trainer.ema is not None
    trainer.ema.reset()


@pytest.mark.parametrize("change", [freeze_more, load_momentum, change_decay, begin_averages_again])
def test_a_graph_is_recorded_again_once_what_it_reads_was_replaced(change: Callable[[Trainer], None]) -> None:
    seen = []
    for has_graph in (False, True):
        trainer = make_trainer(has_graph=has_graph, decay=0.9)
        trainer.train_epoch(0, lambda _: None)
        change(trainer)
        trainer.train_epoch(1, lambda _: None)
        seen.append(ends(trainer))
        if has_graph:
            assert did(trainer) == 2 * (["aside"] * 3 + ["record"] + ["replay"] * 3)
    assert_same_bits(*seen)


def test_weights_loaded_in_place_need_no_new_graph() -> None:
    seen = []
    for has_graph in (False, True):
        trainer = make_trainer(has_graph=has_graph)
        saved = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        trainer.train_epoch(0, lambda _: None)
        trainer.model.load_state_dict(saved)
        trainer.train_epoch(1, lambda _: None)
        seen.append(ends(trainer))
        if has_graph:
            assert did(trainer).count("record") == 1
    assert_same_bits(*seen)


def test_other_shapes_are_run_without_the_graph() -> None:
    model = nn.Linear(4, 2)
    graph = CpuGraph(model, tuple)

    def forward_backward(inputs: Tensor) -> tuple[Tensor]:
        loss = model(inputs).square().sum()
        loss.backward()
        return (loss.detach(),)

    def run(num: int) -> None:
        inputs = torch.randn(num, 4)
        model.zero_grad()
        due = [*forward_backward(inputs), *(param.grad for param in model.parameters())]
        model.zero_grad()
        results = [*graph.run(forward_backward, inputs), *(param.grad for param in model.parameters())]
        for result, value in zip(results, due, strict=True):
            assert result is not None
            assert value is not None
            assert result.equal(value)

    for num in (3, 5, 5, 5, 5, 3, 5):
        run(num)
    assert graph.did == ["aside"] * 4 + ["record", "replay", "replay"]


def test_a_step_that_is_not_finite_stops_the_run() -> None:
    trainer = make_trainer(has_graph=True)
    poisoned = next(trainer.model.parameters())

    def poison(state: EpochState) -> None:
        if state.step == 5:
            with torch.no_grad():
                poisoned.fill_(float("nan"))

    with pytest.raises(DivergedError, match="step 6: the loss or its gradient is not finite"):
        trainer.train_epoch(0, poison)
    assert did(trainer)[-1] == "replay"


@pytest.mark.parametrize("portion", [0.0, 0.5])
def test_an_update_on_a_gpu_reads_nothing_back(portion: float) -> None:
    """Shapes and devices only: an operation whose result is needed on the CPU raises, as one between devices does."""
    trainer = make_trainer(has_graph=False, clip_grad_norm=1.0)
    with FakeTensorMode(), GPU, GpuRecorder() as recorder:
        model = network()
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3, fused=True)
        for param in model.parameters():
            if param.ndim > 1 and portion:  # as SGD.freeze, which looks at the mask
                optimizer._live[param] = torch.ones_like(param, dtype=torch.uint8)
        rates = DeviceRates(optimizer, GPU)
        on_gpu = dataclasses.replace(trainer, model=model, optimizer=optimizer, ema=Ema(model, 0.9))
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        for _ in range(2):  # the first one makes momentum
            recorder.calls.clear()
            rates.fill()
            finite = on_gpu._has_finite_gradient()
            with rates.read():
                on_gpu._update()
    assert finite.device == GPU
    steps = [
        [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for func, args, kwargs, _ in recorder.calls
        if func is torch.ops.aten._fused_sgd_.tensor_lr
    ]
    num_frozen = 2 if portion else 0  # packs are one call, whatever their number of tensors
    assert [len(tensors) for tensors in steps] == [3 * num + 1 for num in (6 - num_frozen, num_frozen) if num]
    assert all(tensor.device == GPU for tensors in steps for tensor in tensors)
    assert all(func is not torch.ops.aten._to_copy.default for func, *_ in recorder.calls), "moved to another device"


def test_rates_are_not_rounded_on_a_cpu() -> None:
    trainer = make_trainer(has_graph=False)
    rates: list[float] = []
    trainer.scheduler.lr_lambdas[0] = lambda step: 0.1 / (1 + step)
    trainer.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    trainer.train_epoch(0, lambda _: None)
    assert rates[1:] == [0.1 / (1 + step) for step in range(1, 6)]


@pytest.mark.parametrize(
    ("training", "is_whole", "due"),
    [
        ({}, False, None),
        ({"on_nan": "skip"}, False, None),
        ({"cuda_graphs": True}, True, "one graph has the passes, clipping, the optimizer's step and the moving"),
        ({"cuda_graphs": True, "on_nan": "skip"}, False, "the passes only; .* because --on-nan skip first waits"),
        ({"cuda_graphs": True, "on_nan": "rewind"}, False, "the passes only; .* because --on-nan rewind first waits"),
    ],
    ids=str,
)
def test_what_a_graph_has_is_reported(training: dict[str, Any], is_whole: bool, due: str | None) -> None:
    config = TrainingConfig(**training)
    assert has_whole_step(config) == is_whole
    line = graph_line(config)
    if due is None:
        assert line is None
    else:
        assert line is not None
        assert re.search(due, line)
