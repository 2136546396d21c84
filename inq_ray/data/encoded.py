"""Images as they are stored, and where they come from."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Encoded(NamedTuple):
    """One image as it is stored.

    Attributes:
        name: Its file, with the row where a file holds many.
        data: The file's bytes; None where they could not be read.
        label: Its class.
        error: Why there are no bytes.
    """

    name: str
    data: bytes | None
    label: int
    error: str | None = None


class Reader(Protocol):
    """Where encoded images come from.

    It is sent to loader workers: pickled it is small, files are opened when they are needed, and its memory does not
    grow with the number of images.
    """

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """See :class:`inq_ray.data.image_set.Images`."""
        ...

    def __len__(self) -> int: ...

    def read(self, samples: NDArray[np.int64]) -> list[Encoded]:
        """Read some images, in this order.

        Raises:
            ValueError: The storage does not answer; a single unreadable image is an `Encoded` with an error.
        """
        ...
