"""Incremental Network Quantization on Ray: trained networks become powers of two.

What is handed out here is the library for one's own training loop; it needs torch and safetensors, not Ray:

    SGD                  torch.optim.SGD that leaves frozen weights alone
    INQScheduler         freezes and quantizes the next portion of the weights, alike on every rank
    param_groups         a model's parameters as groups for SGD: what is quantized, to how many bits, and what is not
    clip_grad_norm_      clips gradients by their norm over live weights
    reset_lr_scheduler   starts a learning-rate schedule again, once a stage
    float_state          from codes back to the exact weights
    save, load           a finished network as one small file, and back into any network of its shapes
    verify               checks that every quantized weight of a network or file is 0 or ±2^k
    summary              which parameters of a network are quantized, and which stay float and why
    StageError           what INQScheduler.step raises on every rank where rank 0 cannot decide a stage
    ReplicaMismatchError what it raises on every rank where ranks do not hold the same bits

The names are imported when they are first used (PEP 562), so that `import inq_ray` costs nothing and starts nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inq_ray.core.optim.clip import clip_grad_norm_
    from inq_ray.core.optim.lr_restart import reset_lr_scheduler
    from inq_ray.core.optim.sgd import SGD
    from inq_ray.export.float_state import float_state
    from inq_ray.export.packed_file import load, save
    from inq_ray.models.layers import summary
    from inq_ray.models.selection import param_groups
    from inq_ray.scheduler import INQScheduler, ReplicaMismatchError, StageError
    from inq_ray.verification import verify

__version__ = "0.2.0"

__all__ = [
    "SGD",
    "INQScheduler",
    "ReplicaMismatchError",
    "StageError",
    "__version__",
    "clip_grad_norm_",
    "float_state",
    "load",
    "param_groups",
    "reset_lr_scheduler",
    "save",
    "summary",
    "verify",
]

_MODULE_OF = {
    "INQScheduler": "inq_ray.scheduler",
    "ReplicaMismatchError": "inq_ray.scheduler",
    "SGD": "inq_ray.core.optim.sgd",
    "StageError": "inq_ray.scheduler",
    "clip_grad_norm_": "inq_ray.core.optim.clip",
    "float_state": "inq_ray.export.float_state",
    "load": "inq_ray.export.packed_file",
    "param_groups": "inq_ray.models.selection",
    "reset_lr_scheduler": "inq_ray.core.optim.lr_restart",
    "save": "inq_ray.export.packed_file",
    "summary": "inq_ray.models.layers",
    "verify": "inq_ray.verification",
}


def __getattr__(name: str) -> object:
    """Import the module of a public name on its first use, and keep the name."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
