"""Number of workers of a run: a number, or a range, from which each start uses as many as fit."""

import re
from typing import NamedTuple

_RANGE = re.compile(r"([0-9]{1,9})(?:\.\.([0-9]{1,9}))?")


class WorkerRange(NamedTuple):
    """Smallest and largest number of workers of a run.

    Attributes:
        least: A run does not start with fewer.
        most: A run does not use more.
    """

    least: int
    most: int

    @classmethod
    def parse(cls, value: int | str) -> "WorkerRange":
        """Read a number, or a text such as "2..8" or "4".

        Raises:
            ValueError: It is neither, or the range is empty or begins below 1.
        """
        found = _RANGE.fullmatch(str(value))
        if found is None and not isinstance(value, int):
            raise ValueError(f"--num-workers must be a number, or a range such as 2..8, got {value[:80]!r}")
        least, most = (value, value) if found is None else (int(found[1]), int(found[2] or found[1]))
        assert isinstance(least, int)
        assert isinstance(most, int)
        if least < 1:
            raise ValueError(f"--num-workers must be at least 1, got {value}")
        if least > most:
            raise ValueError(f"--num-workers {value} is an empty range: did you mean {most}..{least}?")
        return cls(least, most)

    def __str__(self) -> str:
        return str(self.most) if self.least == self.most else f"{self.least}..{self.most}"
