"""Wrapping of a network for training on all ranks: synchronized, compiled, distributed, in this order.

The network itself stays the same object with the same parameters and names; it is evaluated, quantized and written, and
never compiled. Tested orders (torch 2.15, gloo, two ranks):

- DDP around the compiled network: only the network is traced, its graph is split at the ends of DDP's buckets, so
  gradients are sent while others are computed, and the result is a DistributedDataParallel with its no_sync().
- compiling around DDP (torch.compile(ddp) or ddp.compile()): the same numbers, but 24 of DDP's own frames are traced
  first, with two graph breaks and warnings, and an nn.Sequential was not compiled at all.

Two runs end with the same bits, and differ from the network that is not compiled by rounding. A stage that changes
which tensors need gradients compiles again, once; this is the last stage. Wrapping again does not.
"""

import contextlib
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from inq_ray.distributed.gradients import LiveGradients
from inq_ray.distributed.wire import world_size

WARM_UP_PASSES = 2


def wrap(
    model: nn.Module,
    device: torch.device,
    *,
    compile: bool = False,  # noqa: A002, named like the flag
    sync_batchnorm: bool = False,
    live: LiveGradients | None = None,
) -> nn.Module:
    """Return the model wrapped for training on all ranks; the model itself for one rank without compilation.

    Without ``sync_batchnorm``, BatchNorm's running statistics are rank 0's: training does not use them, and they are
    broadcast at the start of a stage and before every validation.

    Args:
        model: Network, on its device; ``sync_batchnorm`` replaces its BatchNorm layers in place, keeping their
            parameters, buffers and names.
        device: Device of the model.
        compile: Whether to use torch.compile; the first step then takes a while.
        sync_batchnorm: Whether BatchNorm uses the statistics of all ranks' images.
        live: Communication hook; None = DDP exchanges all gradients on its own.

    Raises:
        ValueError: It does not work on this machine.
    """
    check_wrapping(device.type, compile=compile, sync_batchnorm=sync_batchnorm)
    model = synchronized(model, sync_batchnorm=sync_batchnorm)
    inner = cast("nn.Module", torch.compile(model)) if compile else model
    if world_size() == 1:
        return inner
    device_ids = [device.index] if device.type == "cuda" else None
    wrapped = DistributedDataParallel(
        inner, device_ids=device_ids, forward_sync_buffers=False, gradient_as_bucket_view=True
    )
    if live is not None:
        wrapped.register_comm_hook(None, live.all_reduce)
    return wrapped


def synchronized(model: nn.Module, *, sync_batchnorm: bool) -> nn.Module:
    """Return the model with SyncBatchNorm layers, if requested and if there are several ranks."""
    if not sync_batchnorm or world_size() == 1:
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call, no-any-return]


def warm_up_ddp(model: nn.Module, step: Callable[[], object]) -> None:
    """Let DDP rebuild its buckets before the first step, so that a resumed run ends with the same bits.

    DDP sums gradients in buckets, which it rebuilds after the first backward pass. With more than two ranks the order
    of a sum depends on an element's position in its bucket, so a resumed run would differ from an uninterrupted one.
    After two passes that are dropped the buckets are final.

    Args:
        model: Result of `wrap`; every rank calls it.
        step: Function that runs a forward and a backward pass on any images, and nothing else.
    """
    if not isinstance(model, DistributedDataParallel):
        return
    # Of its own device: by default torch would use, and warn about, every GPU that this process sees.
    with unchanged_buffers(model), torch.random.fork_rng(devices=model.device_ids or []):
        for _ in range(WARM_UP_PASSES):
            step()
            model.zero_grad(set_to_none=True)


@contextlib.contextmanager
def unchanged_buffers(model: nn.Module) -> Iterator[None]:
    """Restore a network's buffers after the block, bit for bit."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def check_wrapping(device_type: str, *, compile: bool, sync_batchnorm: bool) -> None:  # noqa: A002
    """Refuse what does not work on this machine; takes no time.

    Args:
        device_type: "cpu" or "cuda".
        compile: Whether to compile the network.
        sync_batchnorm: Whether to synchronize BatchNorm.

    Raises:
        ValueError: It does not work; names the flag and the remedy.
    """
    if sync_batchnorm and device_type == "cpu":
        raise ValueError("--sync-batchnorm works on GPUs only: add --use-gpu, or leave it out")
    if not compile:
        return
    if device_type == "cpu":
        _check_cpp_compiler()
    else:
        _check_triton()


def _check_cpp_compiler() -> None:
    """Check what torch's compiler needs on a CPU: a C++ compiler, in $CXX or g++, and Python's headers."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ValueError(
            f"--compile needs a C++ compiler on CPUs, and {compiler} does not exist: install g++, name another in CXX, "
            "or leave --compile out"
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise ValueError(
            f"--compile needs Python's headers on CPUs, and {header} does not exist: install python3-dev, or leave "
            "--compile out"
        )


def _check_triton() -> None:
    """Check what torch's compiler needs on a GPU: Triton, which needs a C compiler to build kernel launchers."""
    if importlib.util.find_spec("triton") is None:
        raise ValueError("--compile needs Triton on GPUs: pip install triton, or leave --compile out")
    compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]
    if not any(shutil.which(compiler) for compiler in compilers):
        raise ValueError(
            f"--compile needs a C compiler on GPUs, and {' or '.join(compilers)} does not exist: install gcc, name "
            "another in CC, or leave --compile out"
        )
