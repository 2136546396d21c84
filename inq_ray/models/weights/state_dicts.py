"""State dicts by torch's weights-only loader: no code of a file is ever run."""

import io
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import torch

from inq_ray.files.kind import kind_of
from inq_ray.files.shown import one_line


class Passed:
    """Stand-in for objects that hold no weights: accepts any arguments and keeps nothing."""

    def __new__(cls, *_: object, **__: object) -> Self:  # noqa: D102
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _Dict:
    """Stand-in for other dictionary types: a dictionary that torch fills, with attributes if they had some."""

    def __new__(cls, *_: object) -> Any:
        return OrderedDict()


class _List:
    """Stand-in for other list types: a plain list."""

    def __new__(cls, *_: object) -> Any:
        return []


# Types that checkpoints have in addition to tensors. Names as in files; the modules are neither called nor need they be
# installed.
_STAND_INS: dict[Callable[..., Any], tuple[str, ...]] = {
    Passed: (
        "argparse.Namespace",
        *(
            f"builtins.{name}"
            for name in ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "range", "slice", "str", "tuple")
        ),
        *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
        "decimal.Decimal",
        "fractions.Fraction",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
        *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
        *(f"numpy.{name}" for name in ("bool", "bool_", "dtype", "ndarray", "str_")),
        *(f"numpy.{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
        *(f"numpy.float{bits}" for bits in (16, 32, 64)),
        *(f"numpy.random._pickle.__{name}_ctor" for name in ("bit_generator", "generator", "randomstate")),
        *(f"numpy.random.{name}" for name in ("_mt19937.MT19937", "_pcg64.PCG64", "bit_generator.SeedSequence")),
        "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
        *(f"omegaconf.{name}" for name in ("dictconfig.DictConfig", "listconfig.ListConfig")),
        *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata")),
        *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Float", "Integer", "Path", "String")),
        *(f"pathlib.{name}" for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath")),
        *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath")),
        "torch.torch_version.TorchVersion",
        "types.SimpleNamespace",
        "typing.Any",
        "uuid.UUID",
    ),
    _Dict: (
        "addict.addict.Dict",
        "collections.defaultdict",
        "easydict.EasyDict",
        "lightning.fabric.utilities.data.AttributeDict",
        "lightning.pytorch.utilities.parsing.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
        "ml_collections.config_dict.config_dict.ConfigDict",
        "munch.Munch",
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "yacs.config.CfgNode",
    ),
    _List: ("collections.deque",),
}
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (stand_in, name) for stand_in, names in _STAND_INS.items() for name in names
]
# Types that torch itself allows, and functions that only construct the next object.
_OF_TORCH = re.compile(
    r"torch\.\w+|torch\.(_utils|_tensor|storage|serialization|nn\.parameter)\.\w+|_codecs\.encode|copyreg\.\w+"
    r"|collections\.(OrderedDict|Counter)|builtins\.(set|bytearray|complex|object)"
)
_ZIP = b"PK\x03\x04"
# Files older than torch 1.6 are a row of pickles, then tensors.
_MOST_PICKLES = 5
_MOST_BYTES = 2**24
_MOST_PROTOCOL = 3
# Errors of pickletools for bytes that are not a pickle, or a damaged one.
_NO_PICKLE = (AttributeError, EOFError, IndexError, OverflowError, ValueError, struct.error)
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def load(path: Path) -> object:
    """Return the contents of a torch.save file, on the CPU; objects without weights are replaced by stand-ins.

    Raises:
        ValueError: The file has another format, is damaged, or would run code when loaded; one line with the remedy.
    """
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols that torch supports in part
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything; it is always the file's fault
        # Not torch's own message: it advises to load the file unsafely.
        reason = str(error) if isinstance(error, OSError | MemoryError) else _reason(path)
        raise ValueError(one_line(f"weights: cannot read {one_line(str(path), 100)}: {reason}")) from error


def _reason(path: Path) -> str:
    """Return why a file could not be loaded, and what to do."""
    damaged = "it is damaged, truncated, or not written by torch.save"
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _reason_of_archive(archive) or damaged
        with path.open("rb") as file:
            start = file.read(9)
            if start.startswith(_ZIP):
                return damaged
            if start[6:] == b"\0\0{":  # header length below 2^48, and the header's first byte
                return "it is a safetensors file: name it .safetensors"
            file.seek(0)
            kind = kind_of(path)
            return _reason_of_pickles(file.read(_MOST_BYTES)) or (f"it is {kind}" if kind else damaged)
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error):
        return damaged


def _reason_of_archive(archive: zipfile.ZipFile) -> str:
    files = {name.rpartition("/")[2]: name for name in archive.namelist()}
    if "constants.pkl" in files:
        return "it is TorchScript: convert it with torch.save(torch.jit.load(FILE).state_dict(), 'w.pth')"
    if "data.pkl" not in files:
        return "it is a ZIP archive of other files: unpack it"
    with archive.open(files["data.pkl"]) as file:
        return _reason_of_pickles(file.read(_MOST_BYTES))


def _reason_of_pickles(data: bytes) -> str:
    """Return why pickles cannot be loaded, "" if they can."""
    file = io.BytesIO(data)
    classes, protocols = [], [0]
    with suppress(*_NO_PICKLE):
        for _ in range(_MOST_PICKLES):
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    module, _, name = str(argument).partition(" ")
                    classes.append(f"{_PYTHON_2.get(module, module)}.{name}")
                elif opcode.name == "PROTO":
                    protocols.append(int(str(argument)))
    harmless = {name for names in _STAND_INS.values() for name in names}
    foreign = list(dict.fromkeys(name for name in classes if name not in harmless and not _OF_TORCH.fullmatch(name)))
    if foreign:
        return (
            f"it contains {one_line(foreign[0], 60)} and would run code when loaded: save it again with "
            "torch.save(model.state_dict(), 'w.pth') where it was made"
        )
    if max(protocols) > _MOST_PROTOCOL:
        return f"it is a pickle of protocol {max(protocols)}: save it with torch.save without pickle_protocol"
    return ""
