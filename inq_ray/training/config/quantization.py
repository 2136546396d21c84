"""Options for quantization."""

import functools
from dataclasses import dataclass

from inq_ray.core.channels import Per
from inq_ray.core.codebook import MAX_BITS, MIN_BITS, Levels, Rule
from inq_ray.core.partition import STRATEGIES
from inq_ray.core.portions import check_portions
from inq_ray.models.layer_bits import parse_layer_bits, words_of_bits
from inq_ray.training.config.checks import EachIs, by, count
from inq_ray.training.config.option import Phase, Unused, check_options, option

_option = functools.partial(option, phase=Phase.STAGES)

_BITS = EachIs(
    lambda bits: type(bits) is int and MIN_BITS <= bits <= MAX_BITS, f"a whole number from {MIN_BITS} to {MAX_BITS}"
)


def _check_layer_bits(words: tuple[str, ...]) -> tuple[str, ...]:
    return words_of_bits(parse_layer_bits(words))


def _check_portions(portions: tuple[float, ...]) -> tuple[float, ...]:
    return check_portions(portions, complete=True)


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """Quantization of the weights."""

    weight_bits: int = _option(5, "Bits per quantized weight, 2 to 8.", check=_BITS, fits_all=True, is_first=True)
    layer_bits: tuple[str, ...] = _option(
        (),
        "Bits of single layers as PATTERN=BITS, such as fc=8 layer1.*=4; all others have --weight-bits.",
        check=by(_check_layer_bits),
    )
    iterative_steps: tuple[float, ...] = _option(
        (0.5, 0.75, 0.875, 1.0),
        "Accumulated portion of each tensor that is frozen after each stage; ascending, the last is 1.",
        check=by(_check_portions),
        in_stage_key=False,  # portion, epochs and learning rate of each stage are
        fits_all=True,
    )
    strategy: str = _option(
        "pruning",
        "Strategy for which weights freeze first: pruning, the largest; random, any.",
        choices=tuple(STRATEGIES),
        fits_all=True,
    )
    codebook: Rule = _option(
        "max",
        "Rule for a tensor's largest power of two: max, from its largest weight (the paper); mse, least squared error.",
    )
    levels: Levels = _option(
        "paper",
        "Levels of a weight: paper, zero and 2^(bits-2) powers of two of either sign; full, all 2^(bits-1) - 1 powers "
        "that have codes.",
        unused=(
            Unused(
                when=lambda config: config.quantization.all_bits == {MIN_BITS},
                why="has no effect at 2 bits, where both have one power of two",
            ),
        ),
    )
    codebook_per: Per = _option(
        "tensor", "Scope of the largest power of two: one per tensor, or one per channel (output) of it."
    )
    compensate: bool = _option(
        False,
        "Adjust the live weights at each stage so that each layer's outputs on training images change least.",
    )
    calibration_images: int = _option(
        512,
        "Number of training images for --compensate, --post-training, and BatchNorm's statistics in the accuracy right "
        "after quantizing.",
        check=count(1),
    )
    post_training: bool = _option(
        False,
        "Quantize all weights at once without training: one stage, compensated on --calibration-images as augmented in "
        "training; no labels.",
        sweep="it has one stage without epochs, and trials have the same stages: use inq-ray quantize --post-training",
    )
    keep_zeros: bool = _option(
        False,
        "Keep the zeros of a pruned network, with --post-training.",
        sweep="it belongs to --post-training, which no sweep runs: use inq-ray quantize --post-training",
        unused=(
            Unused(
                when=lambda config: not config.quantization.post_training,
                why="has no effect without --post-training: add it, or leave this out",
                is_refused=True,
            ),
        ),
    )
    skip: tuple[str, ...] = _option((), "Patterns of layers that stay float, such as classifier or layer1.*.")
    include: tuple[str, ...] = _option(
        (), "Patterns of other parameters to quantize, with two or more dimensions, such as lstm or *.experts.*."
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.post_training and len(self.iterative_steps) > 1:
            raise ValueError(
                f"--post-training has one stage: use --iterative-steps 1, got {len(self.iterative_steps)} portions"
            )

    @property
    def all_bits(self) -> frozenset[int]:
        """Bits that a quantized weight may have."""
        return frozenset({self.weight_bits, *parse_layer_bits(self.layer_bits).values()})
