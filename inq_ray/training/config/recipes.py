"""Named recipes: configurations to start from, which flags override."""

import difflib
from typing import Any

from inq_ray.core.codebook import Rule
from inq_ray.models.registry import is_ours, is_own, is_timm
from inq_ray.training.config import NetworkConfig, QuantizationConfig, RunConfig, TrainingConfig

# Accumulated portions of the paper (Zhou et al., ICLR 2017) by network and bits.
_HALVES = (0.5, 0.75, 0.875, 1.0)
PAPER_PORTIONS: dict[tuple[str, int], tuple[float, ...]] = {
    ("alexnet", 5): (0.3, 0.6, 0.8, 1.0),
    ("vgg16", 5): _HALVES,
    ("googlenet", 5): (0.2, 0.4, 0.6, 0.8, 1.0),
    ("resnet18", 5): _HALVES,
    ("resnet50", 5): _HALVES,
    ("resnet18", 4): (0.3, 0.5, 0.8, 0.9, 0.95, 1.0),
    ("resnet18", 3): (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
    ("resnet18", 2): (0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 1.0),
}

# Re-training as in INQ-pytorch's ImageNet example: 4 epochs per stage, learning rate x 0.1 after 2.
_IMAGENET = TrainingConfig()
_CIFAR = TrainingConfig(epochs=4, batch_size=128, lr=0.01, weight_decay=1e-4, lr_schedule="cosine")
_DIGITS = TrainingConfig(
    epochs=3,
    float_epochs=12,
    batch_size=64,
    lr=0.02,
    float_lr=0.1,
    weight_decay=5e-4,
    lr_schedule="cosine",
)

# Recipes by name: the paper's networks with its portions, and the demo's.
_DEFAULTS = {f"{arch}-{bits}bit": (arch, bits) for arch, bits in [*PAPER_PORTIONS, ("digits_cnn", 5)]}
# Recipes of the results table: stages learn from the float network at a constant rate and end as an average over their
# last steps.
_OF_TABLE: dict[str, Any] = {
    "lr": 0.02,
    "lr_schedule": "constant",
    "ema_share": 0.3,
    "distill": True,
    "distill_labels": 0.3,
    "bn_images": 10_000,
}
_MIXED: dict[str, Any] = {"cutmix": 1.0, "distill_labels": 0.0}
# What they differ in, by bits. Epochs are where they help most: at 5 bits while half of the weights are live,
# at 3 bits from where top-1 drops, at 4 bits in both places; at 2 bits the few live weights must move further, at twice
# the learning rate. At 3 and 2 bits stages learn from the float network's outputs for mixed images, which it cannot
# have overfitted. docs/results/README.md has trials of both.
_TABLE: dict[int, dict[str, Any]] = {
    5: {"epochs_each": (7, 1, 1, 1)},
    4: {"epochs_each": (4, 2, 2, 2, 3, 1)},
    3: {"epochs_each": (2, 1, 2, 2, 2, 3, 5, 1), **_MIXED},
    2: {"epochs_each": (1, 1, 1, 2, 2, 2, 2, 2, 2, 1), "lr_each": (0.02,) * 4 + (0.04,) * 6, **_MIXED},
}
# Recipes of that table by name.
_LOSSLESS = {f"cifar_resnet20-{bits}bit": ("cifar_resnet20", bits) for bits in _TABLE}
# Recipe for any network and bits.
LOSSLESS = "lossless"
NAMED = (*_DEFAULTS, *_LOSSLESS)
_LOSSLESS_EPOCHS = 40


def portions(arch: str, weight_bits: int) -> tuple[float, ...]:
    """Return the paper's portions for a network, or those of its ResNet-18 at these bits (its 5-bit ones above 5).

    timm's networks have those of the paper's network of the same name. At 5 bits the paper lists one set of portions
    for all networks other than AlexNet and GoogleNet, so variants (vgg16_bn, resnet34) have it too.
    """
    name = arch.removeprefix("timm/").partition(".")[0] if is_timm(arch) else arch
    return PAPER_PORTIONS.get((name, weight_bits)) or PAPER_PORTIONS["resnet18", min(weight_bits, 5)]


def recipe(name: str) -> RunConfig:
    """Return the recipe called ``name``.

    Raises:
        ValueError: There is none; names the nearest.
    """
    if name in _DEFAULTS:
        return default_recipe(*_DEFAULTS[name])
    if name in _LOSSLESS:
        arch, weight_bits = _LOSSLESS[name]
        start = default_recipe(arch, weight_bits)
        return start.replace(quantization={"codebook": "mse"}, training=_OF_TABLE | _TABLE[weight_bits])
    known = [LOSSLESS, *NAMED]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known
    raise ValueError(f"--recipe {name} is unknown; nearest: {', '.join(near)}")


def default_recipe(arch: str, weight_bits: int) -> RunConfig:
    """Return the default configuration of a run of ``arch`` at ``weight_bits``."""
    training = _IMAGENET
    if is_ours(arch):
        training = _DIGITS if arch == "digits_cnn" else _CIFAR
    return RunConfig(
        network=NetworkConfig(arch=arch),
        quantization=QuantizationConfig(
            weight_bits=weight_bits,
            iterative_steps=portions(arch, weight_bits),
            codebook=codebook_at(weight_bits),
        ),
        training=training,
    )


def codebook_at(weight_bits: int) -> Rule:
    """Return the default rule for codebooks of these bits.

    With 0 and one power of two, the paper's rule sets 95 % of Gaussian weights to 0; least squared error 38 %.
    """
    return "mse" if weight_bits == 2 else "max"


def lossless_recipe(arch: str, weight_bits: int) -> RunConfig:
    """Return the configuration for keeping the float network's accuracy, for any network, with a budget of epochs.

    Live weights make up for rounding (--compensate), all codes of 3 and 4 bits are used, stages learn from the float
    network and from labels at a rate that short trials find and that falls within each stage, later stages have more
    epochs, and BatchNorm statistics are estimated at the end. docs/results/README.md has what was measured.
    """
    start = default_recipe(arch, weight_bits)
    training: dict[str, Any] = {
        "epochs_total": _LOSSLESS_EPOCHS,
        "epochs_spread": "late",
        "lr_probe": True,
        "lr_schedule": "cosine",
        "distill": True,
        "distill_labels": 0.3,
        "bn_images": 10_000,
    }
    # A user's own network is likely to be small, with few images: ImageNet's batch would leave few steps to an epoch.
    if is_own(arch):
        training |= {"batch_size": 64, "weight_decay": 1e-4}
    quantization: dict[str, Any] = {"codebook": "mse", "compensate": True}
    if weight_bits in (3, 4):
        quantization["levels"] = "full"
    return start.replace(quantization=quantization, training=training)


def trained_first(start: RunConfig) -> RunConfig:
    """Return a recipe adapted to float training before the first stage, which it does not have.

    There the schedule is the same as in stages, but the rate must fall.
    """
    if start.training.ema_share is None:
        return start
    return start.replace(training={"lr_schedule": "cosine", "ema_share": None})
