"""The table of data sources, and `open_source`, which goes through it.

A new source is a module (or folder) of its own and an entry in `SOURCES`; nobody else names it.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from inq_ray.data.image_set import Source
from inq_ray.data.preprocessing import Augmentation, Preprocessing
from inq_ray.storage.retry import MissingError

_DEFAULT_ARCH = "resnet18"


class Opening(NamedTuple):
    """What a source is opened with; see `open_source`."""

    data: str
    preprocessing: Preprocessing
    augmentation: Augmentation
    index_folder: Path | None
    fingerprint: str | None
    follow_links: bool


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """A kind of source, and what is known of it before it is opened.

    Attributes:
        layout: What such data look like, for messages.
        matches: Whether a path or an address is of this kind; may look at the storage. Names are known by `name`.
        open: Opens it, without decoding images. Large libraries are imported there and not before.
        name: The value of --data, if that is a name; None = a path or an address.
        arch: Network that is trained by default.
        has_own_statistics: Whether images are normalized by the data's own mean and standard deviation, whatever the
            preprocessing says.
    """

    layout: str
    open: Callable[[Opening], Source]
    matches: Callable[[str], bool] = lambda _: False
    name: str | None = None
    arch: str = _DEFAULT_ARCH
    has_own_statistics: bool = False


def open_source(
    data: str,
    *,
    preprocessing: Preprocessing | None = None,
    augmentation: Augmentation | None = None,
    index_folder: Path | None = None,
    fingerprint: str | None = None,
    follow_links: bool = False,
) -> Source:
    """Open data without decoding them.

    Args:
        data: A name, a path, or an address (s3://, gs://, hdfs://, file://) of one of the layouts in `SOURCES`.
        preprocessing: How the network wants to see images; of those kept in memory only mean and standard deviation.
        augmentation: What training does to images.
        index_folder: Where the index of an image folder is kept; by default in the cache of this machine.
        fingerprint: What the data must be, where that is known: those with which a run was started elsewhere.
        follow_links: Whether links in a folder may lead out of it.

    Returns:
        The source.

    Raises:
        ValueError: There is no such data, or it is not of this layout, or other data than those of the fingerprint, or
            a link leads out of the folder; one line that names what is wrong.
    """
    layouts = ", ".join(entry.layout for entry in SOURCES)
    if not data:
        raise ValueError(f"no data given: pass one of {layouts}")
    opening = Opening(
        data, preprocessing or Preprocessing(), augmentation or Augmentation(), index_folder, fingerprint, follow_links
    )
    entry = named_source(data) or next(entry for entry in SOURCES if entry.matches(data))
    try:
        source = entry.open(opening)
    except MissingError as error:
        raise MissingError(f"{error}; data are one of {layouts}") from error
    if fingerprint not in (None, source.info.fingerprint):
        raise ValueError(
            f"{data} holds other data on {platform.node()} than where the run was started: every node must see the same"
        )
    return source


def named_source(data: str) -> SourceEntry | None:
    """Return the entry whose name `data` is; None for a path or an address. Looks at no storage."""
    return next((entry for entry in SOURCES if entry.name == data), None)


def default_arch(data: str) -> str:
    """Return the network that is trained on data by default; looks at no storage."""
    entry = named_source(data)
    return entry.arch if entry else _DEFAULT_ARCH


def _open_digits(opening: Opening) -> Source:
    from inq_ray.data.digits import DigitsSource

    return DigitsSource(opening.augmentation)


def _is_image_folder(data: str) -> bool:
    from inq_ray.data.folder.source import is_image_folder
    from inq_ray.storage.address import locate

    return "*" not in data and is_image_folder(locate(data))


def _open_folder(opening: Opening) -> Source:
    from inq_ray.data.folder.source import FolderSource
    from inq_ray.storage.address import locate

    return FolderSource(
        locate(opening.data),
        opening.preprocessing,
        opening.augmentation,
        opening.index_folder,
        fingerprint=opening.fingerprint,
        follow_links=opening.follow_links,
    )


def _open_parquet(opening: Opening) -> Source:
    from inq_ray.data.parquet.source import ParquetSource

    return ParquetSource(opening.data, opening.preprocessing, opening.augmentation, follow_links=opening.follow_links)


# The first that matches is opened.
SOURCES = (
    SourceEntry(
        layout="'digits' (scikit-learn's)",
        open=_open_digits,
        name="digits",
        arch="digits_cnn",
        has_own_statistics=True,
    ),
    SourceEntry(
        layout="a folder of train/CLASS/*.JPEG and val/CLASS/*.JPEG", matches=_is_image_folder, open=_open_folder
    ),
    SourceEntry(
        layout="a folder, file or glob of Parquet named like train-*.parquet", matches=bool, open=_open_parquet
    ),
)
