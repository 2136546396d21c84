"""Encoded images, and where they are read from."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Encoded(NamedTuple):
    """An encoded image.

    Attributes:
        name: Its file, with the row if a file has several images.
        data: The file's bytes; None if they could not be read.
        label: Its class.
        error: Why there are no bytes.
    """

    name: str
    data: bytes | None
    label: int
    error: str | None = None


class Reader(Protocol):
    """Source of encoded images.

    It is sent to loader workers: it is small when pickled, opens files when needed, and its memory does not grow with
    the number of images.
    """

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """See :class:`inq_ray.data.image_set.Images`."""
        ...

    def __len__(self) -> int: ...

    def read(self, samples: NDArray[np.int64]) -> list[Encoded]:
        """Read some images, in order.

        Raises:
            ValueError: The storage does not respond; a single unreadable image is an `Encoded` with an error.
        """
        ...
