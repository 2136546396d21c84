"""Options that have no effect: who gives one expects something of it."""

from collections.abc import Collection

from inq_ray.data.image_set import SourceInfo
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import Declared, Phase, declared

# Learning rates of SGD beyond these are slips of the keyboard.
_LARGEST_RATE = 10.0
_LEAST_RATE = 1e-8


def unused_options(
    given: Collection[str], config: RunConfig, info: SourceInfo, *, is_evaluation: bool = False
) -> list[str]:
    """Return a line for each option that was typed and changes nothing.

    They are no errors: a script may give more than each of its runs needs.

    Args:
        given: Dotted names of the options that were typed.
        config: What they ask for, with the recipe's part.
        info: Facts about the data.
        is_evaluation: Whether the network is measured as it is.
    """
    options = [each for name, each in declared(config).items() if name in given]
    lines = [(each, _why(each, config, info, is_evaluation=is_evaluation)) for each in options]
    return [f"{each.flag} {why}" for each, why in lines if why is not None]


def doubtful_options(config: RunConfig) -> list[str]:
    """Return a line for each learning rate with which training is lost, or changes nothing."""
    training = config.training
    rates = {"--float-lr": [training.float_lr] if training.float_epochs else []}
    rates |= {"--lr-each": list(training.lr_each)} if training.lr_each else {"--lr": [training.lr]}
    lines = []
    for flag, each in rates.items():
        if max(each, default=0) > _LARGEST_RATE:
            lines.append(f"{flag} {max(each):g}: training at such a rate diverges; usual ones are 0.001 to 0.1")
        if min(each, default=1) < _LEAST_RATE:
            lines.append(f"{flag} {min(each):g}: training at such a rate changes nothing; usual ones are 0.001 to 0.1")
    return lines


def _why(each: Declared, config: RunConfig, info: SourceInfo, *, is_evaluation: bool) -> str | None:
    """Return why an option has no effect; None = it has one."""
    phase = each.option.phase
    if is_evaluation and phase > Phase.ALWAYS:
        return "has no effect with --evaluate: the network is measured as it is"
    if config.plain and phase == Phase.STAGES:
        return "has no effect with --plain: nothing is quantized"
    case = each.unused(config, info)
    return None if case is None else case.reason(config, info)
