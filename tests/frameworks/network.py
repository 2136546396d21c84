"""A small network, its data, and a training that is really killed: what the tests of all frameworks share."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import inq_ray

PORTIONS = [0.5, 0.75, 0.875, 1.0]
NUM_SAMPLES = 64
BATCH_SIZE = 16
STEPS_PER_EPOCH = NUM_SAMPLES // BATCH_SIZE
# For processes that import torch and a framework on a machine that others use too.
TIMEOUT_SECONDS = 300.0


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(NUM_SAMPLES, 6, generator=generator)
    return TensorDataset(inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long())


def sgd(model: nn.Module) -> inq_ray.SGD:
    groups = inq_ray.param_groups(model, weight_bits=4)
    return inq_ray.SGD(groups, lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_until_killed(function: Callable[..., Any], *args: Any) -> None:
    """Run ``function``, of the top of a module, in a new process, which must be killed by SIGKILL."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=args, daemon=True)
    process.start()
    try:
        process.join(TIMEOUT_SECONDS)
        assert process.exitcode == -signal.SIGKILL, process.exitcode
    finally:
        process.kill()
        process.join()


def frozen_weights(inq: inq_ray.INQScheduler) -> dict[str, tuple[Tensor, Tensor]]:
    """Return, by name, which weights are frozen, and their values."""
    return {
        name: (inq.state[name].frozen.clone(), param.detach()[inq.state[name].frozen].clone())
        for name, param in inq.quantized().items()
    }


def check_kept(model: nn.Module, before: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Check that what was frozen holds the same bits, all of them 0 or powers of two."""
    params = dict(model.named_parameters())
    assert before
    for name, (frozen, values) in before.items():
        assert torch.equal(params[name].detach()[frozen], values), name
        mantissas = torch.frexp(values)[0].abs()
        assert bool(((mantissas == 0.5) | (values == 0)).all()), name


def check_same_end(one: nn.Module, other: nn.Module, inqs: tuple[inq_ray.INQScheduler, inq_ray.INQScheduler]) -> None:
    """Check that two trainings ended with the same bits, all stages done, the network as the codes say."""
    assert [inq.stage for inq in inqs] == [len(PORTIONS)] * 2
    for model, inq in zip((one, other), inqs, strict=True):
        for name, weight in inq_ray.float_state(inq).items():
            assert torch.equal(model.get_parameter(name), weight), name
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
