"""Incremental Network Quantization on Ray: trained networks with weights that are powers of two.

The public names are the library for your own training loop; they need torch and safetensors, not Ray:

    SGD                  torch.optim.SGD that leaves frozen weights unchanged
    INQScheduler         quantizes and freezes the next portion of the weights, identically on every rank
    param_groups         sorts a model's parameters into groups for SGD: quantized ones by bits, and float ones
    clip_grad_norm_      clips gradients by their norm over live weights
    LiveGradients        makes DDP exchange only the gradients of live weights
    Moments              second moments of layers' inputs, with which INQScheduler.step adjusts live weights
    quantize_            quantizes a trained network without training, using a few hundred images
    reset_lr_scheduler   restarts a learning rate schedule, for each stage
    float_state          returns the exact weights from codes
    save, load           writes a finished network as one small file, and loads it into any network of its shapes
    verify               checks that every quantized weight of a network or file is 0 or ±2^k
    summary              shows which parameters of a network are quantized, and which stay float and why
    StageError           raised by INQScheduler.step on every rank if a rank cannot decide about a tensor
    ReplicaMismatchError raised by INQScheduler.step on every rank if the ranks differ in bits

Names are imported on first use (PEP 562), so that `import inq_ray` is fast and has no side effects.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inq_ray.core.moments import Moments
    from inq_ray.core.optim.clip import clip_grad_norm_
    from inq_ray.core.optim.lr_restart import reset_lr_scheduler
    from inq_ray.core.optim.sgd import SGD
    from inq_ray.distributed.gradients import LiveGradients
    from inq_ray.export.float_state import float_state
    from inq_ray.export.packed.writer import load, save
    from inq_ray.models.layers import summary
    from inq_ray.models.selection import param_groups
    from inq_ray.post_training import quantize_
    from inq_ray.scheduler import INQScheduler, ReplicaMismatchError, StageError
    from inq_ray.verification import verify

__version__ = "0.2.0"

__all__ = [
    "SGD",
    "INQScheduler",
    "LiveGradients",
    "Moments",
    "ReplicaMismatchError",
    "StageError",
    "__version__",
    "clip_grad_norm_",
    "float_state",
    "load",
    "param_groups",
    "quantize_",
    "reset_lr_scheduler",
    "save",
    "summary",
    "verify",
]

_MODULE_OF = {
    "INQScheduler": "inq_ray.scheduler",
    "LiveGradients": "inq_ray.distributed.gradients",
    "Moments": "inq_ray.core.moments",
    "ReplicaMismatchError": "inq_ray.scheduler",
    "SGD": "inq_ray.core.optim.sgd",
    "StageError": "inq_ray.scheduler",
    "clip_grad_norm_": "inq_ray.core.optim.clip",
    "float_state": "inq_ray.export.float_state",
    "load": "inq_ray.export.packed.writer",
    "param_groups": "inq_ray.models.selection",
    "quantize_": "inq_ray.post_training",
    "reset_lr_scheduler": "inq_ray.core.optim.lr_restart",
    "save": "inq_ray.export.packed.writer",
    "summary": "inq_ray.models.layers",
    "verify": "inq_ray.verification",
}


def __getattr__(name: str) -> object:
    """Import the module of a public name on its first use, and cache the name."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
