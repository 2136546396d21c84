"""Report of options without effect: the user who typed one expects something of it."""

from collections.abc import Collection

from inq_ray.data.image_set import SourceInfo
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import Declared, Phase, declared

# SGD learning rates beyond these are probably typing errors.
_LARGEST_RATE = 10.0
_LEAST_RATE = 1e-8


def unused_options(
    given: Collection[str], config: RunConfig, info: SourceInfo, *, is_evaluation: bool = False
) -> list[str]:
    """Return a line for each typed option that has no effect.

    They are not errors: a script may pass more options than each of its runs needs.

    Args:
        given: Dotted names of the options that were typed.
        config: Configuration, with the recipe's values.
        info: Facts about the data.
        is_evaluation: Whether the network is only evaluated.
    """
    options = [each for name, each in declared(config).items() if name in given]
    lines = [(each, _why(each, config, info, is_evaluation=is_evaluation)) for each in options]
    return [f"{each.flag} {why}" for each, why in lines if why is not None]


def doubtful_options(config: RunConfig) -> list[str]:
    """Return a line for each learning rate with which training diverges or does nothing, and for a mean without std."""
    training, data = config.training, config.data
    rates = {"--float-lr": [training.float_lr] if training.float_epochs else []}
    if training.lr_each or not training.lr_probe or config.plain:
        rates |= {"--lr-each": list(training.lr_each)} if training.lr_each else {"--lr": [training.lr]}
    lines = []
    if bool(data.mean) != bool(data.std):
        given, other = ("--mean", "--std") if data.mean else ("--std", "--mean")
        lines.append(f"{given} without {other}: images are normalized by the network's usual {other}; add yours")
    for flag, each in rates.items():
        if max(each, default=0) > _LARGEST_RATE:
            lines.append(f"{flag} {max(each):g}: training diverges at this rate; usual rates are 0.001 to 0.1")
        if min(each, default=1) < _LEAST_RATE:
            lines.append(f"{flag} {min(each):g}: this rate is too small to train; usual rates are 0.001 to 0.1")
    return lines


def _why(each: Declared, config: RunConfig, info: SourceInfo, *, is_evaluation: bool) -> str | None:
    """Return why an option has no effect; None = it has one."""
    phase = each.option.phase
    if is_evaluation and phase > Phase.ALWAYS:
        return "has no effect with --evaluate: the network is measured without training"
    if config.plain and phase == Phase.STAGES:
        return "has no effect with --plain: nothing is quantized"
    case = each.unused(config, info)
    return None if case is None else case.reason(config, info)
