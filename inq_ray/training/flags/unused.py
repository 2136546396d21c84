"""Flags that play no part: who gives one expects something of it, and is told why nothing comes of it."""

from collections.abc import Sequence

from inq_ray.training.config import RunConfig
from inq_ray.training.flags.parse import flags_in

_OF_STAGES = ("--weight-bits", "--iterative-steps", "--strategy", "--codebook", "--skip")


def idle_flags(arguments: Sequence[str], config: RunConfig) -> list[str]:
    """What is to be said of flags that change nothing, a line each.

    They are no errors: a script may say more than each of its runs needs.

    Args:
        arguments: as they were typed.
        config: what they ask for, with the recipe's part.
    """
    typed, training = flags_in(arguments), config.training
    of_each = next((flag for flag in ("--epochs-each", "--epochs-total") if flag in typed), "")
    longest = max((config.float_epochs, *config.stage_epochs))
    too_short = f"the rate rises for {training.warmup_epochs:g} epochs, the longest stage has {longest}"
    reasons: list[tuple[tuple[str, ...], bool, str]] = [
        (("--epochs",), bool(of_each), f"plays no part: {of_each} says how long each stage is"),
        (("--lr",), "--lr-each" in typed, "plays no part: --lr-each says the rate of each stage"),
        (("--lr-step-epochs", "--lr-gamma"), training.lr_schedule != "step", "plays no part: add --lr-schedule step"),
        (("--distill-labels", "--distill-temperature"), not training.distill, "plays no part: add --distill"),
        (_OF_STAGES, config.plain, "plays no part: --plain quantizes nothing"),
        (("--warmup-epochs",), longest < training.warmup_epochs, f"keeps all rates below --lr: {too_short}"),
    ]
    return [f"{flag} {why}" for flags, is_idle, why in reasons for flag in flags if is_idle and flag in typed]
