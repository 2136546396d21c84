"""Parquet files read by range, local or remote: the footer at the end, then columns of single row groups.

A whole file is never read, and none is kept open. Reads are retried after transient failures.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inq_ray.storage.address import Location
from inq_ray.storage.retry import retry

# Bytes read from a file's end at once: the footers of ImageNet's shards are smaller.
_TAIL_BYTES = 1 << 17
# A parsed footer takes about 200 kB. Only the last used ones are kept, so that memory does not grow with the set.
_NUM_FOOTERS = 32
_MAGIC = b"PAR1"


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn pyarrow's errors about a damaged file into one line that names it.

    Raises:
        ValueError: Reading failed within the block.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"cannot read {name}, which is damaged or not Parquet: {reason}") from error


def read_footer(file: Location) -> tuple[Any, bytes, int]:
    """Return a file's metadata (pyarrow.parquet.FileMetaData), the footer's bytes, and the file's size.

    The file ends with the footer, its length and "PAR1". The footer has the schema, sizes, offsets and statistics.

    Raises:
        ValueError: The file cannot be read, or is damaged.
    """
    with closing(RetriedFile(file)) as source:
        tail = source.tail(_TAIL_BYTES)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] == _MAGIC and len(tail) < length <= source.size:
            tail = source.tail(length)
    with readable(file.name):
        return pq.read_metadata(pa.BufferReader(_MAGIC + tail[-length:])), tail[-length:-8], source.size


def footer_hash(footer: bytes) -> str:
    """Return the hex digest that identifies a file's footer, so that changes are detected."""
    return hashlib.sha256(footer).hexdigest()


def read_groups(file: Location, footer: str, groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
    """Return some columns of some row groups; apart from these only the footer is read.

    Args:
        file: The file.
        footer: Hash of its footer.
        groups: Indices of row groups.
        columns: Names; fields of a struct are separated by dots.

    Raises:
        ValueError: The file cannot be read, is damaged, or has changed.
    """
    with open_parquet(file, footer) as parquet, readable(file.name):
        return parquet.read_row_groups(list(groups), columns=list(columns), use_threads=False)


@contextmanager
def open_parquet(file: Location, footer: str, *, whole_columns: bool = True) -> Iterator[pq.ParquetFile]:
    """Open a file; the footer is not read again if the file was used recently.

    Args:
        file: The file.
        footer: Hash of its footer.
        whole_columns: Whether to read all columns of a row group in one request; else in small parts as needed.

    Raises:
        ValueError: The file cannot be read, is damaged, or has changed.
    """
    metadata, size = _metadata(file, footer)
    with closing(RetriedFile(file)) as source:
        if source.size != size:
            raise ValueError(_changed(file))
        with readable(file.name):
            opened = pq.ParquetFile(
                pa.PythonFile(source, mode="r"),
                metadata=metadata,
                pre_buffer=whole_columns,
                buffer_size=0 if whole_columns else 1 << 20,
                page_checksum_verification=True,
            )
        yield opened


@lru_cache(maxsize=_NUM_FOOTERS)
def _metadata(file: Location, footer: str) -> tuple[Any, int]:
    """Return a file's metadata and its size."""
    metadata, data, size = read_footer(file)
    if footer_hash(data) != footer:
        raise ValueError(_changed(file))
    return metadata, size


def _changed(file: Location) -> str:
    return f"{file.name} changed after it was opened: start again, and do not change the data meanwhile"


class RetriedFile:
    """A file for random access, as pyarrow.PythonFile needs it; reads are retried after transient failures.

    Attributes:
        size: Size, bytes.
        closed: Whether it is closed.
    """

    def __init__(self, file: Location) -> None:
        self._location = file
        self._file = file.open()
        self._at = 0
        self.size: int = self._file.size()
        self.closed = False

    def tail(self, num_bytes: int) -> bytes:
        """Return the last bytes of the file, or all of it."""
        self.seek(-min(num_bytes, self.size), 2)
        return self.read(min(num_bytes, self.size))

    def read(self, num_bytes: int) -> bytes:
        """Return the next bytes; fewer only at the file's end.

        Raises:
            ValueError: The storage fails.
        """
        wanted = min(num_bytes, self.size - self._at)

        def read() -> bytes:
            data: bytes = self._file.read_at(wanted, self._at)
            if len(data) < wanted:
                raise ConnectionResetError(f"received {len(data)} of {wanted} bytes")
            return data

        data = retry(read, self._location.name)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position: from the start (0), the current position (1), or the end (2)."""
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def close(self) -> None:
        """Close the file."""
        self.closed = True
        self._file.close()
