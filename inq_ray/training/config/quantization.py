"""What becomes of the weights."""

from dataclasses import dataclass

from inq_ray.core.codebook import Rule, check_num_bits, check_rule
from inq_ray.core.partition import Strategy, check_strategy
from inq_ray.core.portions import check_portions
from inq_ray.training.config.checks import named


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """What becomes of the weights."""

    weight_bits: int = 5
    """Bits of a weight, 2 to 8."""
    iterative_steps: tuple[float, ...] = (0.5, 0.75, 0.875, 1.0)
    """Accumulated portions of each tensor that are frozen after each stage; they rise and end at 1."""
    strategy: Strategy = "pruning"
    """Which weights freeze first: "pruning" the largest, "random" any."""
    codebook: Rule = "max"
    """What each tensor's largest power follows from: "max" its largest weight, "mse" least squared error (2 bits)."""
    skip: tuple[str, ...] = ()
    """Patterns of layers that stay float, such as classifier or layer1.*."""

    def __post_init__(self) -> None:
        with named("--weight-bits"):
            check_num_bits(self.weight_bits)
        with named("--iterative-steps"):
            object.__setattr__(self, "iterative_steps", check_portions(self.iterative_steps, complete=True))
        with named("--strategy"):
            check_strategy(self.strategy)
        with named("--codebook"):
            check_rule(self.codebook)
