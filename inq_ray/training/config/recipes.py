"""Named recipes: configurations to start from. Flags override what they say."""

import difflib
from typing import Any

from inq_ray.core.codebook import Rule
from inq_ray.models.registry import is_ours, is_timm
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

# The re-training of INQ-pytorch's ImageNet example: 4 epochs a stage, learning rate x 0.1 after 2.
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

# By name: the paper's networks with its portions, and the demo's.
_DEFAULTS = {f"{arch}-{bits}bit": (arch, bits) for arch, bits in [*PAPER_PORTIONS, ("digits_cnn", 5)]}
_MIXED: dict[str, Any] = {"cutmix": 1.0, "distill_labels": 0.0}
# Of the table of results, by bits. Epochs are where they bring most, at 5 bits while half of the weights can move, at 3
# from where top-1 fell, at 4 in both places; at 2 the few weights that are left must move further, at twice the rate.
# At 3 and 2 bits stages learn what the float network says of mixed images, of which it cannot know the labels by heart.
# docs/results/README.md has trials of both.
_TABLE: dict[int, dict[str, Any]] = {
    5: {"epochs_each": (7, 1, 1, 1)},
    4: {"epochs_each": (4, 2, 2, 2, 3, 1)},
    3: {"epochs_each": (2, 1, 2, 2, 2, 3, 5, 1), **_MIXED},
    2: {"epochs_each": (1, 1, 1, 2, 2, 2, 2, 2, 2, 1), "lr_each": (0.02,) * 4 + (0.04,) * 6, **_MIXED},
}
# By name: those of that table.
_LOSSLESS = {f"cifar_resnet20-{bits}bit": ("cifar_resnet20", bits) for bits in _TABLE}
# For any network and bits.
LOSSLESS = "lossless"
NAMED = (*_DEFAULTS, *_LOSSLESS)
_LOSSLESS_EPOCHS = 40
_AVERAGED: dict[str, Any] = {"lr_schedule": "constant", "ema_share": 0.3}
# The rate before the first stage has the same course as in stages, and there it must fall.
_FALLING: dict[str, Any] = {"lr_schedule": "cosine", "ema_share": None}


def portions(arch: str, weight_bits: int) -> tuple[float, ...]:
    """The paper's portions for a network, or those of its ResNet-18 at these bits (its 5-bit ones above 5).

    timm's networks have those of the paper's of the same name. The paper's networks that are not AlexNet or GoogleNet
    share one list at 5 bits, so its variants (vgg16_bn, resnet34) have it too.
    """
    name = arch.removeprefix("timm/").partition(".")[0] if is_timm(arch) else arch
    return PAPER_PORTIONS.get((name, weight_bits)) or PAPER_PORTIONS["resnet18", min(weight_bits, 5)]


def recipe(name: str) -> RunConfig:
    """The recipe called ``name``.

    Raises:
        ValueError: there is none; names the nearest.
    """
    if name in _DEFAULTS:
        return default_recipe(*_DEFAULTS[name])
    if name in _LOSSLESS:
        arch, weight_bits = _LOSSLESS[name]
        return lossless_recipe(arch, weight_bits).replace(training={"epochs_total": None, **_TABLE[weight_bits]})
    known = [LOSSLESS, *NAMED]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known
    raise ValueError(f"--recipe {name} is not known; nearest: {', '.join(near)}")


def default_recipe(arch: str, weight_bits: int) -> RunConfig:
    """What a run of ``arch`` at ``weight_bits`` does if it is not told otherwise."""
    training = _IMAGENET
    if is_ours(arch):
        training = _DIGITS if arch == "digits_cnn" else _CIFAR
    # With 0 and one power of two, the paper's rule makes 95 % of Gaussian weights 0; least error 38 %.
    codebook: Rule = "mse" if weight_bits == 2 else "max"
    return RunConfig(
        network=NetworkConfig(arch=arch),
        quantization=QuantizationConfig(
            weight_bits=weight_bits, iterative_steps=portions(arch, weight_bits), codebook=codebook
        ),
        training=training,
    )


def lossless_recipe(arch: str, weight_bits: int) -> RunConfig:
    """What a run does whose aim is the float network's accuracy, at several times the epochs of the default.

    Stages learn from the float network at a constant rate and end as an average over their last steps (a network that
    the recipe trains before the first stage: at a falling one), powers are those of least squared error, and
    BatchNorm's statistics are estimated at the end. docs/results/README.md has what of it was measured, on
    held-out images of CIFAR-10, at 5 and 3 bits. The number of epochs and the rate of other families were not.
    """
    start = default_recipe(arch, weight_bits)
    return start.replace(
        quantization={"codebook": "mse"},
        training={
            "epochs_total": _LOSSLESS_EPOCHS,
            "lr": 0.02 if is_ours(arch) else 0.005,
            **(_FALLING if start.training.float_epochs else _AVERAGED),
            "distill": True,
            "distill_labels": 0.3,
            "bn_images": 10_000,
        },
    )


def trained_first(start: RunConfig) -> RunConfig:
    """A recipe for a network that is trained before its first stage, although the recipe did not mean it to be."""
    return start.replace(training=_FALLING) if start.training.ema_share is not None else start


def of_trained(start: RunConfig) -> RunConfig:
    """The lossless recipe for a network that is given trained, although the recipe meant to train it first."""
    return start.replace(training=_AVERAGED)
