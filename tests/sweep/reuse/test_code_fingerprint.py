"""What changes the fingerprint of the program: whatever may change a bit of a stage's end, and no word beside it."""

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

import inq_ray
from inq_ray.sweep.reuse.code_fingerprint import _DECIDE, _DECIDE_NOTHING, code_fingerprint, digest_sources

ROOT = Path(inq_ray.__file__).parent
HASHED = "training/loop/lr_schedule.py"
SOURCE = '''"""The module."""
import math

RATE = 0.5  # why


class Options:
    """The class."""

    size: int = 3
    """The field."""


def rate(step: int) -> float:
    """The function."""
    # halves
    return math.cos(step) * RATE
'''


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Our folders and files, all empty but one."""
    root = tmp_path / "inq_ray"
    for path in ROOT.rglob("*.py"):
        copy = root / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.touch()
    (root / HASHED).write_text(SOURCE)
    return root


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("The module.", "A module.\n\nIn more words.\n"),
        lambda text: text.replace("The class.", "A class."),
        lambda text: text.replace("The field.", "A field."),
        lambda text: text.replace("The function.", "A function."),
        lambda text: text.replace('    """The function."""\n', ""),
        lambda text: text.replace("# why", "# because"),
        lambda text: text.replace("    # halves\n", "\n\n"),
        lambda text: text.replace("math.cos(step) * RATE", "(\n        math.cos(step) * RATE\n    )"),
    ],
)
def test_words_and_layout_change_nothing(edit: Callable[[str], str], sources: Path) -> None:
    was = digest_sources(sources)
    assert edit(SOURCE) != SOURCE
    (sources / HASHED).write_text(edit(SOURCE))
    assert digest_sources(sources) == was


@pytest.mark.parametrize(("old", "new"), [("0.5", "0.25"), ("cos", "sin"), ("size: int = 3", "size: int = 4")])
def test_a_constant_or_a_call_changes_it(old: str, new: str, sources: Path) -> None:
    was = digest_sources(sources)
    (sources / HASHED).write_text(SOURCE.replace(old, new))
    assert digest_sources(sources) != was


def test_a_new_file_counts_in_every_folder_that_decides_bits_and_in_no_other(sources: Path) -> None:
    was = digest_sources(sources)
    decide = set()
    for folder in [sources, *(path for path in sources.rglob("*") if path.is_dir())]:
        new = folder / "a_new_file.py"
        new.write_text("VALUE = 1\n")
        if digest_sources(sources) != was:
            decide.add(folder.relative_to(sources).as_posix())
        new.unlink()
    assert decide >= {"core", "core/optim", "distributed", "models", "training", "training/loop", "training/task",
                      "training/evaluation", "data", "data/decode", "data/augment", "data/order", "data/parquet",
                      "data/folder"}  # fmt: skip
    assert not [name for name in decide if name.partition("/")[0] not in _DECIDE]
    assert decide.isdisjoint(_DECIDE_NOTHING)


@pytest.mark.parametrize("name", ["training/report/console.py", "training/flags/parse.py", "sweep/console.py",
                                  "cluster/trainer.py", "export/verify.py", *_DECIDE_NOTHING])  # fmt: skip
def test_what_decides_no_bit_changes_nothing(name: str, sources: Path) -> None:
    was = digest_sources(sources)
    path = sources / name
    if path.is_dir():
        path /= "a_new_file.py"
    else:
        assert path.is_file(), "what is named exists"
    path.write_text("VALUE = 1\n")
    assert digest_sources(sources) == was


@pytest.mark.parametrize("library", ["pillow", "timm", "turbojpeg"])
def test_another_version_of_what_computes_is_another_program(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    was, version = code_fingerprint(), metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0" if name == library else version(name))
    code_fingerprint.cache_clear()
    try:
        assert code_fingerprint() != was
    finally:
        code_fingerprint.cache_clear()
