"""A name or a path -> data to train and test on."""

import re
from pathlib import Path
from typing import Protocol

from inq_ray.data.image_set import ImageSet, SourceInfo, Split
from inq_ray.data.transforms import Augmentation

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Source(Protocol):
    """Two splits of images and facts about them.

    Attributes:
        info: Facts, known without decoding.
        augmentation: What training on it does to images, unless told otherwise.
    """

    info: SourceInfo
    augmentation: Augmentation

    def split(self, split: Split) -> ImageSet:
        """Return the decoded images of "train" or "test"."""
        ...


def open_source(data: str) -> Source:
    """Open data without decoding them.

    Args:
        data: "digits", or a folder or file of Parquet in the layout of the Hugging Face hub: train-*.parquet and
            test-*.parquet or validation-*.parquet, with a struct column `image` or `img` {bytes, path} and an integer
            column `label`.

    Returns:
        The source.

    Raises:
        ValueError: There is no such data, or it is not of this layout; one line that names what is wrong.
    """
    if data == "digits":
        from inq_ray.data.digits import DigitsSource

        return DigitsSource()
    if not data:
        raise ValueError("no data given: pass 'digits', or a folder of Parquet")
    if _ADDRESS.match(data):
        raise ValueError(f"{data=} is an address; only local folders are read: copy the files, and pass their folder")
    from inq_ray.data.parquet import ParquetSource

    return ParquetSource(Path(data).expanduser().absolute())
