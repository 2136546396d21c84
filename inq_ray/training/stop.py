"""Runs that are asked to stop: before a machine is taken away, by Ctrl-C, or by `ray job stop`."""

from inq_ray.training.checkpoint.place import Place


class StopError(Exception):
    """A run was asked to stop and has left a checkpoint; raised on every rank at once.

    Attributes:
        place: from which it goes on; None = from where it was started, as nothing was done since.
    """

    def __init__(self, place: Place | None) -> None:
        self.place = place
        super().__init__(f"stopped at {place.name}" if place else "stopped before its first step")

    def __reduce__(self) -> tuple[type["StopError"], tuple[Place | None]]:
        return type(self), (self.place,)
