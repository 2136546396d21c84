"""What is wrong with the weights that a user named."""


class WeightsError(ValueError):
    """Weights cannot be used.

    Attributes:
        reason: What is wrong, without --weights and what to do about that flag: for weights that another flag names.
    """

    def __init__(self, reason: str, *, flag: str = "", advice: str = "") -> None:
        self.reason = reason
        super().__init__(f"{flag}{' ' if flag else ''}{reason}{advice}")
