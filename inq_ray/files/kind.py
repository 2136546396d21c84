"""Kind of a file by its first bytes, for messages about files with a misleading name."""

from pathlib import Path

_LFS = b"version https://git-lfs.github.com/spec/"
_BEGINNINGS = (
    (_LFS, "a Git LFS pointer, not the file itself: run 'git lfs pull' in its repository"),
    (b"<!doctype html", "an HTML page, perhaps a login page: download the file itself"),
    (b"<html", "an HTML page, perhaps a login page: download the file itself"),
    (b"<?xml", "an XML page, perhaps a server's error: download the file itself"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"bzh", "a bzip2 archive: unpack it"),
    (b"\xfd7zxz\x00", "an xz archive: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"rar!\x1a\x07", "a RAR archive: unpack it"),
    (b"pk\x03\x04", "a ZIP archive: unpack it, or name it .pth if torch.save wrote it"),
    (b"\x89hdf\r\n", "an HDF5 file"),
    (b"gguf", "a GGUF file"),
    (b"\x93numpy", "a NumPy array"),
)
_MOST = 512


def kind_of(path: Path) -> str:
    """Return what a file is and what to do, such as "a gzip archive: unpack it"; "" if it is unknown."""
    try:
        with path.open("rb") as file:
            start = file.read(_MOST)
    except OSError:
        return ""
    if not start:
        return "an empty file"
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it"
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").lower()
    return next((kind for beginning, kind in _BEGINNINGS if start.startswith(beginning)), "")
