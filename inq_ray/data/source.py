"""Data sources: the table `SOURCES`, and `open_source`.

A new source is a module (or folder) of its own and an entry in `SOURCES`; no other code names it.
"""

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from inq_ray.data.image_set import Source
from inq_ray.data.preprocessing import Augmentation, Preprocessing
from inq_ray.storage.retry import MissingError

_DEFAULT_ARCH = "resnet18"


class Opening(NamedTuple):
    """Arguments for opening a source; see `open_source`."""

    data: str
    preprocessing: Preprocessing
    augmentation: Augmentation
    index_folder: Path | None
    fingerprint: str | None
    image_column: str | None
    label_column: str | None
    follow_links: bool


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """A kind of source; its facts are known without opening it.

    Attributes:
        layout: Description of the layout, for messages.
        matches: Returns whether a path or an address is of this kind; may access the storage. Names are matched by
            `name`.
        open: Opens the source without decoding images; imports large libraries.
        name: The value of --data, if it is a name; None = a path or an address.
        arch: Default network.
        has_own_statistics: Whether images are normalized by the data's own mean and standard deviation instead of those
            in the preprocessing.
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
    image_column: str | None = None,
    label_column: str | None = None,
    follow_links: bool = False,
) -> Source:
    """Open data without decoding them.

    Args:
        data: A name, a path, or an address (s3://, gs://, hdfs://, file://) of a layout in `SOURCES`, or of a folder
            that contains one a few levels down, and nothing else.
        preprocessing: Preprocessing that the network expects; for images kept in memory only mean and standard
            deviation.
        augmentation: Augmentation for training.
        index_folder: Folder for the index of an image folder; default: the cache of this machine.
        fingerprint: Fingerprint that the data must have, if the run was started on another machine.
        image_column: Column of images in Parquet; default: "image" or "img".
        label_column: Column of labels in Parquet; default: "label".
        follow_links: Whether links in a folder may lead out of it.

    Returns:
        The source.

    Raises:
        ValueError: The data do not exist, have another layout or another fingerprint, or a link leads out of the
            folder; one line that names the problem.
    """
    layouts = ", ".join(entry.layout for entry in SOURCES)
    if not data:
        raise ValueError(f"no data given: pass one of {layouts}")
    try:
        entry = named_source(data)
        if entry is None:
            data = _root(data, follow_links=follow_links)
            entry = next(entry for entry in SOURCES if entry.matches(data))
        source = entry.open(
            Opening(
                data,
                preprocessing or Preprocessing(),
                augmentation or Augmentation(),
                index_folder,
                fingerprint,
                image_column,
                label_column,
                follow_links,
            )
        )
    except MissingError as error:
        if _is_hub_name(data):
            name = os.path.relpath(data)
            raise MissingError(
                f"there is no folder {name}, and data are not downloaded automatically: get a data set of the "
                f"Hugging Face hub with 'hf download {name} --repo-type dataset --local-dir DIR', then pass --data DIR"
            ) from error
        raise MissingError(f"{error}; --data takes one of {layouts}") from error
    if fingerprint not in (None, source.info.fingerprint):
        raise ValueError(
            f"{data} has other data on {platform.node()} than where the run was started: every node must see the same"
        )
    return source


def named_source(data: str) -> SourceEntry | None:
    """Return the entry named `data`; None for a path or an address. Does not access storage."""
    return next((entry for entry in SOURCES if entry.name == data), None)


def default_arch(data: str) -> str:
    """Return the default network for data; does not access storage."""
    entry = named_source(data)
    return entry.arch if entry else _DEFAULT_ARCH


def _root(data: str, *, follow_links: bool) -> str:
    """Return the path or address of the folder with the splits, which `data` or one of its subfolders is."""
    from inq_ray.data.layout import find_root
    from inq_ray.storage.address import locate
    from inq_ray.storage.pattern import is_pattern

    if is_pattern(data):
        return data
    location = locate(data)
    root = find_root(location, location.fence(follow_links=follow_links))
    if root == location:
        return data
    return root.path if root.is_local else root.name


def _is_hub_name(data: str) -> bool:
    """Return whether data that do not exist may be meant as OWNER/NAME on the hub."""
    return (
        "://" not in data
        and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", os.path.relpath(data)) is not None
        and not os.path.exists(data)
    )


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

    for flag, column in (("--image-column", opening.image_column), ("--label-column", opening.label_column)):
        if column is not None:
            raise ValueError(f"{flag} is for Parquet only; the classes of {opening.data} are its folders: leave it out")
    return FolderSource(
        locate(opening.data),
        opening.preprocessing,
        opening.augmentation,
        opening.index_folder,
        fingerprint=opening.fingerprint,
        follow_links=opening.follow_links,
    )


def _open_parquet(opening: Opening) -> Source:
    from inq_ray.data.parquet.files import Columns
    from inq_ray.data.parquet.source import ParquetSource

    return ParquetSource(
        opening.data,
        opening.preprocessing,
        opening.augmentation,
        columns=Columns(opening.image_column, opening.label_column),
        follow_links=opening.follow_links,
    )


# The first match is opened.
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
