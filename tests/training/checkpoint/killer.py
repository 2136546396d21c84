"""Kills a writer between any two of its steps."""

from collections.abc import Callable, Iterator
from typing import Any


class KilledError(BaseException):
    """A process that ends in the middle: nothing of ours runs after it."""


class Killer:
    """Lets so many calls of what it wraps go through, and kills at the next, before or after it is done."""

    def __init__(self, calls: int, *, is_done: bool) -> None:
        self.left = calls
        self.is_done = is_done

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left < 0 and not self.is_done:
                raise KilledError
            result = function(*args, **options)
            if self.left < 0:
                raise KilledError
            return result

        return call

    @classmethod
    def each(cls, patch: Callable[["Killer"], object], work: Callable[[], object]) -> Iterator[bool]:
        """Works again and again, killed at one call after the other; yields whether it came to its end."""
        for is_done in (False, True):
            for calls in range(100):
                patch(cls(calls, is_done=is_done))
                try:
                    work()
                except KilledError:
                    yield False
                    continue
                yield True
                break
