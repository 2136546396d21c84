"""A network as all ranks train it together: synchronized, compiled, distributed, in this order.

The network itself stays what it was, the same object with the same parameters and names: it is what is evaluated,
quantized and written, never compiled. What was tried of the order (torch 2.15, gloo, two ranks):

- DDP around the compiled network: only the network is traced, its graph is split where DDP's buckets end, so that
  gradients travel while others are computed, and the result is a DistributedDataParallel with its no_sync().
- compiling around DDP (torch.compile(ddp) or ddp.compile()): the same numbers, but 24 of DDP's own frames are traced
  first, with two breaks of the graph and warnings, and an nn.Sequential was not compiled at all.

Two runs end with the same bits, and differ from the network that is not compiled by rounding. A stage that changes
which tensors need gradients compiles again, once: of all stages the last one does. Wrapping again does not.
"""

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from inq_ray.distributed.wire import world_size

_WARM_UP_PASSES = 2


def wrap(
    model: nn.Module,
    device: torch.device,
    *,
    compile: bool = False,  # noqa: A002, as the flag is called
    sync_batchnorm: bool = False,
) -> nn.Module:
    """Return the model as all ranks train it together; the model itself where there is one rank and nothing to compile.

    Without ``sync_batchnorm``, BatchNorm's running statistics are rank 0's: training does not use them, and they are
    broadcast where they matter, at the start of a stage and before every validation.

    Args:
        model: the network, on its device; ``sync_batchnorm`` replaces its BatchNorm layers in place, and keeps their
            parameters, buffers and names.
        device: of the model.
        compile: whether torch.compile makes the kernels; the first step then takes a while.
        sync_batchnorm: whether BatchNorm normalizes by the statistics of all ranks' images.

    Raises:
        ValueError: it cannot work on this machine.
    """
    check_wrapping(device.type, compile=compile, sync_batchnorm=sync_batchnorm)
    model = synchronized(model, sync_batchnorm=sync_batchnorm)
    inner = cast("nn.Module", torch.compile(model)) if compile else model
    if world_size() == 1:
        return inner
    device_ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(
        inner, device_ids=device_ids, forward_sync_buffers=False, gradient_as_bucket_view=True
    )


def synchronized(model: nn.Module, *, sync_batchnorm: bool) -> nn.Module:
    """Return the model, its BatchNorm layers over all ranks' images if there are several and it is asked for."""
    if not sync_batchnorm or world_size() == 1:
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call, no-any-return]


def warm_up_ddp(model: nn.Module, step: Callable[[], object]) -> None:
    """Let DDP arrange its buckets before the first step, so that a run that goes on ends with the same bits.

    DDP sums gradients in buckets, which it arranges again after the first backward pass. With more than two ranks the
    order of a sum follows an element's place in its bucket, so a run that was stopped and goes on would differ from one
    that was not. After two passes whose gradients are dropped it is arranged; buffers are left as they were.

    Args:
        model: as `wrap` returns it; every rank calls it.
        step: a forward and a backward pass, of any images, and nothing else.
    """
    if not isinstance(model, DistributedDataParallel):
        return
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng():
        for _ in range(_WARM_UP_PASSES):
            step()
            model.zero_grad(set_to_none=True)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])


def check_wrapping(device_type: str, *, compile: bool, sync_batchnorm: bool) -> None:  # noqa: A002
    """Refuse what cannot work on this machine; costs nothing.

    Args:
        device_type: "cpu" or "cuda".
        compile: whether the network is to be compiled.
        sync_batchnorm: whether BatchNorm is to be synchronized.

    Raises:
        ValueError: names the flag and what to do.
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
    """What torch's compiler needs on a CPU: a C++ compiler, by its name in $CXX or g++, and the headers of Python."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ValueError(
            f"--compile needs a C++ compiler on CPUs, and there is no {compiler}: install g++, name another in CXX, or "
            "leave --compile out"
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise ValueError(
            f"--compile needs the headers of Python on CPUs, and there is no {header}: install python3-dev, or leave "
            "--compile out"
        )


def _check_triton() -> None:
    """What torch's compiler needs on a GPU: Triton, which has a C compiler build what launches its kernels."""
    if importlib.util.find_spec("triton") is None:
        raise ValueError("--compile needs Triton on GPUs: pip install triton, or leave --compile out")
    compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]
    if not any(shutil.which(compiler) for compiler in compilers):
        raise ValueError(
            f"--compile needs a C compiler on GPUs, and there is no {' or '.join(compilers)}: install gcc, name "
            "another in CC, or leave --compile out"
        )
