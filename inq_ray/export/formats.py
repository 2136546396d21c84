"""Files of a result: each format has an entry here, and a file of its own."""

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from inq_ray.export import codes_file, model_file
from inq_ray.export.errors import VerificationError
from inq_ray.export.packed import reader, writer
from inq_ray.export.result import Result
from inq_ray.files.shown import quoted
from inq_ray.files.whole import whole


class Format(NamedTuple):
    """A file of a result.

    Attributes:
        file: Its name, with * for the result's name.
        write: Writes a result to a path; the same result gives the same bytes. Raises OSError, or ValueError for facts
            that the file cannot represent.
        verify: Reads it back from a path, and compares it with the tensors of model.safetensors, given the names of the
            quantized ones. Raises :class:`inq_ray.export.errors.VerificationError`.
    """

    file: str
    write: Callable[[Path, Result], None]
    verify: Callable[[Path, Mapping[str, Tensor], Collection[str]], None]

    def path(self, folder: Path, name: str) -> Path:
        """Return the file of the result `name` in a folder."""
        return folder / self.file.replace("*", name)

    def find(self, folder: Path) -> Path:
        """Return the file in the folder of one result.

        Raises:
            VerificationError: There is none, or there are several.
        """
        found = [folder / self.file] if "*" not in self.file else sorted(folder.glob(self.file))
        if len(found) != 1 or not found[0].is_file():
            several = f", but {len(found)}: {quoted([path.name for path in found])}" if len(found) > 1 else ""
            raise VerificationError(None, f"there is not exactly one {self.file} in {folder}{several}")
        return found[0]


FORMATS = (
    Format(model_file.MODEL_FILE, model_file.write, model_file.verify),
    Format(codes_file.CODES_FILE, codes_file.write, codes_file.verify),
    Format(f"*{reader.SUFFIX}", writer.write, writer.verify),
)


def write_result(folder: str | Path, result: Result, name: str = "model") -> None:
    """Write all files into a folder, which is created if missing; the same result gives the same bytes.

    Args:
        folder: Folder on any file system with an atomic rename.
        result: Result to write; shared tensors are written once per name, except in packed files.
        name: Name of the result, for files that carry it.

    Raises:
        ValueError: The files cannot be written; existing ones are then unchanged.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # All are written under temporary names before one is renamed: a full disk leaves no files that do not match.
        with ExitStack() as stack:
            for each in FORMATS:
                each.write(stack.enter_context(whole(each.path(folder, name))), result)
    except OSError as error:
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        raise ValueError(
            f"cannot write the result to {folder}: {reason}; free some space, and run the same command again"
        ) from error
