"""Deterministic computing: the same input gives the same bits, on one kind of machine."""

import os

import torch


def set_deterministic() -> None:
    """Make torch compute deterministically where it can; every rank calls it before computing anything."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # true float32, so that measured accuracy is that of the files
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would also fill every new tensor with NaN, to show reads of unwritten memory: half of all kernels in a small
    # network's step on a GPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
