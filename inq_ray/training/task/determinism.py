"""The same numbers in, the same bits out, on one kind of machine."""

import os

import torch


def set_deterministic() -> None:
    """Have torch compute so, as far as it can; to be called by every rank before anything is computed."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32: what is measured is what the files hold
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would write NaN into every new tensor too, so that reading what was never written shows: half of all kernels of
    # a small network's step on a GPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
