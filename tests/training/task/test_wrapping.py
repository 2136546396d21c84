"""The order of compiling and DDP; most of it by a backend that makes no kernels, since inductor takes seconds."""

import contextlib
import copy
import functools
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from inq_ray.core.unwrap import unwrap
from inq_ray.models.selection import param_groups
from inq_ray.training.task import wrapping
from inq_ray.training.task.wrapping import check_wrapping, warm_up_ddp, wrap
from tests.ranks import run_ranks

pytestmark = pytest.mark.system

CPU = torch.device("cpu")


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 4, 5), nn.ReLU(),
        nn.Linear(5, 2),
    )  # fmt: skip


def train(model: nn.Module, steps: int, seed: int = 0) -> None:
    """Steps as the loop does them, each followed by an evaluation of the network inside."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        model.train()
        optimizer.zero_grad(set_to_none=True)
        model(torch.randn(6, 3, 6, 6, generator=generator)).square().sum().backward()
        optimizer.step()
        with torch.inference_mode():
            unwrap(model).eval()(torch.randn(9, 3, 6, 6, generator=generator))


class Graphs:
    """Stands for torch.compile: keeps the graphs that are compiled, and runs them as they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from torch._dynamo.backends.debugging import aot_eager

        self.compiled: list[Any] = []

        def backend(graph: Any, inputs: Any) -> Any:
            self.compiled.append(graph)
            return aot_eager(graph, inputs)

        torch._dynamo.reset()
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))


@pytest.mark.parametrize("device_ids", [None, [3]])
def test_warming_up_concerns_no_other_gpu(device_ids: list[int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []

    @contextlib.contextmanager
    def fork(devices: Any = "all") -> Iterator[None]:
        used.append(devices)
        yield

    monkeypatch.setattr(torch.random, "fork_rng", fork)
    model = DistributedDataParallel.__new__(DistributedDataParallel)
    nn.Module.__init__(model)
    model.device_ids = device_ids
    warm_up_ddp(model, lambda: None)
    assert used == [device_ids or []]


def test_nothing_to_do_is_nothing_done() -> None:
    model = make_network()
    assert wrap(model, CPU) is model


def test_the_network_itself_is_never_compiled_and_keeps_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = Graphs(monkeypatch)
    model, other = make_network(), make_network()
    names = list(model.state_dict())
    wrapped = wrap(model, CPU, compile=True)
    assert unwrap(wrapped) is model
    train(wrapped, 2)
    train(other, 2)
    assert len(graphs.compiled) == 1, "evaluating compiles nothing"
    assert list(model.state_dict()) == names
    assert [group["params"] for group in param_groups(wrapped)] == [group["params"] for group in param_groups(model)]
    assert same(model, other), "without kernels of its own it is the network"


def test_a_stage_compiles_anew_only_where_other_tensors_need_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = Graphs(monkeypatch)
    model = make_network()
    num_compiled = []
    for still in ((), (), (), ("0.weight", "4.weight", "6.weight")):
        for name, param in model.named_parameters():
            param.requires_grad_(name not in still)
        train(wrap(model, CPU, compile=True), 2)
        num_compiled.append(len(graphs.compiled))
    assert num_compiled == [1, 1, 1, 2]


def same(model: nn.Module, other: nn.Module) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)


def train_on_ranks() -> tuple[list[dict[str, Tensor]], list[int]]:
    """Weights of a plain and of a compiled network after two steps of two parts each, and numbers of graphs."""
    weights, num_graphs = [], []
    for compiled in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            graphs = Graphs(patch)
            torch.manual_seed(0)
            model = nn.Sequential(*[nn.Linear(1600, 1600) for _ in range(4)])
            wrapped = wrap(model, CPU, compile=compiled)
            assert isinstance(wrapped, DistributedDataParallel), "so that it has no_sync()"
            optimizer = torch.optim.SGD(wrapped.parameters(), lr=1e-4)
            generator = torch.Generator().manual_seed(torch.distributed.get_rank())
            for _ in range(2):
                optimizer.zero_grad(set_to_none=True)
                with wrapped.no_sync():
                    wrapped(torch.randn(4, 1600, generator=generator)).square().sum().backward()
                wrapped(torch.randn(4, 1600, generator=generator)).square().sum().backward()
                optimizer.step()
            weights.append({name: param.detach()[:9] for name, param in model.named_parameters()})
            num_graphs.append(len(graphs.compiled))
    return weights, num_graphs


def test_ranks_train_alike_and_send_gradients_while_others_are_computed() -> None:
    answers = run_ranks(train_on_ranks, 2)
    for (plain, compiled), num_graphs in answers:
        assert num_graphs[0] == 0
        assert num_graphs[1] > 1, "41 MB of gradients are more than one of DDP's buckets"
        for name, param in compiled.items():
            assert param.equal(answers[0][0][1][name])
            torch.testing.assert_close(param, plain[name])


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPUs")
def test_compiled_kernels_train_as_the_network_does_up_to_rounding() -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    plain, again = copy.deepcopy(model), copy.deepcopy(model)
    for network, step_of in ((model, True), (plain, False), (again, True)):
        wrapped = wrap(network, CPU, compile=step_of)
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
        generator = torch.Generator().manual_seed(1)
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            wrapped(torch.randn(5, 3, generator=generator)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-6)
    assert same(model, again), "the same program gives the same bits"


def test_what_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**options: Any) -> str:
        with pytest.raises(ValueError, match="leave ") as caught:
            wrap(make_network(), CPU, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "--sync-batchnorm works on GPUs only" in refused(sync_batchnorm=True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler does not exist" in refused(compile=True)
    monkeypatch.setenv("CXX", "true")
    monkeypatch.setattr(wrapping.sysconfig, "get_path", lambda _: "/nowhere")
    assert "/nowhere/Python.h" in refused(compile=True)
    monkeypatch.setattr(wrapping.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="needs Triton"):
        check_wrapping("cuda", compile=True, sync_batchnorm=False)
    monkeypatch.setattr(wrapping.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ValueError, match="needs a C compiler on GPUs, and no-such-compiler does not exist"):
        check_wrapping("cuda", compile=True, sync_batchnorm=False)
    monkeypatch.setenv("CC", "true")
    check_wrapping("cuda", compile=True, sync_batchnorm=True)
    check_wrapping("cuda", compile=False, sync_batchnorm=True)


def sync_batchnorm_keeps() -> tuple[list[str], bool, str]:
    """On two ranks the layers are replaced, and all that they hold stays; run without a GPU up to where torch asks."""
    model = make_network()
    names, tensors = list(model.state_dict()), [tensor.data_ptr() for tensor in model.state_dict().values()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wrapping, "check_wrapping", accept)
        with contextlib.suppress(ValueError):  # DDP, which has seen the layers
            wrap(model, CPU, sync_batchnorm=True)
    held = [tensor.data_ptr() for tensor in model.state_dict().values()] == tensors
    return names, held and list(model.state_dict()) == names, type(model[1]).__name__


def accept(*_: Any, **__: Any) -> None:
    """Refuses nothing."""


@pytest.mark.parametrize(("size", "kind"), [(1, "BatchNorm2d"), (2, "SyncBatchNorm")])
def test_synchronized_layers_hold_what_the_others_held(size: int, kind: str) -> None:
    for _, kept, of_type in run_ranks(sync_batchnorm_keeps, size):
        assert kept
        assert of_type == kind
