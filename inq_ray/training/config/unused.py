"""Options that have no effect: who gives one expects something of it."""

from collections.abc import Collection

from inq_ray.data.image_set import SourceInfo
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import Declared, Phase, declared


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


def _why(each: Declared, config: RunConfig, info: SourceInfo, *, is_evaluation: bool) -> str | None:
    """Return why an option has no effect; None = it has one."""
    phase = each.option.phase
    if is_evaluation and phase > Phase.ALWAYS:
        return "has no effect with --evaluate: the network is measured as it is"
    if config.plain and phase == Phase.STAGES:
        return "has no effect with --plain: nothing is quantized"
    case = each.unused(config, info)
    return None if case is None else case.reason(config, info)
