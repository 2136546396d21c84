"""Error of verification."""

from typing import Any

from inq_ray.files.shown import one_line, quoted


class VerificationError(RuntimeError):
    """A result is not correct.

    Attributes:
        tensor: Name of the tensor; None if a whole file is wrong.
        reason: What is wrong with it.
    """

    def __init__(self, tensor: str | None, reason: str) -> None:
        self.tensor = tensor
        self.reason = reason
        super().__init__(one_line(reason if tensor is None else f"tensor {quoted(tensor)}: {reason}"))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tensor, self.reason)
