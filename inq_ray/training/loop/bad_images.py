"""Unreadable images: left out and counted, up to a limit, the same ones on all ranks."""

import json
from collections.abc import Iterable

from inq_ray.data.image_set import BadImage
from inq_ray.distributed.wire import gather_bytes


class BadImages:
    """The distinct images that were left out.

    Args:
        allowed: Maximum number, over all ranks.
    """

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self._reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """Return what is wrong, by the image's name, sorted by name."""
        return dict(sorted(self._reasons.items()))

    def add(self, bad: Iterable[BadImage]) -> None:
        """Count unreadable images of this rank's batch.

        Raises:
            ValueError: There are more than allowed; names one.
        """
        self._reasons |= {image.name: image.reason for image in bad}
        self._check()

    def agree(self) -> None:
        """Merge the images of all ranks; every rank calls it.

        Raises:
            ValueError: There are more than allowed; raised on every rank.
        """
        if self.allowed == 0:
            return  # if none are allowed, no rank has any
        for message in gather_bytes(json.dumps(self._reasons).encode()):
            self._reasons |= json.loads(message)
        self._check()

    def _check(self) -> None:
        if len(self) <= self.allowed:
            return
        name, reason = next(iter(self.reasons.items()))
        if self.allowed == 0:
            raise ValueError(f"{name}: {reason}; repair or remove it, or allow N such images with --skip-bad-images N")
        raise ValueError(
            f"{len(self)} images cannot be read, more than --skip-bad-images {self.allowed} allows; one is {name}: "
            f"{reason}"
        )
