"""The runs of the table, each by its own command: kept when it ends, and gone on with where it was ended before.

Run by run it is what a person would type; nothing here has a part in the numbers.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from inq_ray.files.whole import write_text

_DATA = "../shared/data/cifar10"
_WEIGHTS = "../shared/data/models/cifar10_resnet20.safetensors"
# What rows that have ended write: not part of what runs.
_WRITTEN = (":!docs/results", ":!docs/images/results.png", ":!README.md")


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        bits: of a weight.
        seed: of the run.
        strategy: pruning, or random to be compared with.
        flags: more of them, the same for all.
    """

    bits: int
    seed: int
    strategy: str = "pruning"
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the run and of its record."""
        kind = "" if self.strategy == "pruning" else f"-{self.strategy}"
        return f"cifar_resnet20-{self.bits}bit{kind}-s{self.seed}"

    @property
    def arguments(self) -> list[str]:
        """Of the job, as anybody can give them in a checkout."""
        strategy = [] if self.strategy == "pruning" else ["--strategy", self.strategy]
        recipe = ["--recipe", f"cifar_resnet20-{self.bits}bit", *strategy, "--seed", str(self.seed)]
        return ["--data", _DATA, "--weights", _WEIGHTS, *recipe, *self.flags, "--name", self.name]

    @property
    def command(self) -> str:
        """The whole line."""
        return " ".join(["python", "jobs/quantize_imagenet.py", *self.arguments])


def rows_of(bits: Sequence[int], seeds: Sequence[int], random_bits: Sequence[int], flags: Sequence[str]) -> list[Row]:
    """A seed of every width before the next seed, so that an early end leaves a table of all widths."""
    rows: list[Row] = []
    for seed in seeds:
        rows += [Row(width, seed, flags=tuple(flags)) for width in bits]
        rows += [Row(width, seed, "random", tuple(flags)) for width in random_bits]
    return rows


def commit_of(root: Path) -> str:
    """The commit that is checked out.

    Raises:
        ValueError: files differ from it, so that its name would not be that of the code that runs.
    """
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *_WRITTEN)
    if changed:
        raise ValueError(
            f"files differ from the commit, which a record names: commit first ({changed.splitlines()[0]})"
        )
    return _git(root, "rev-parse", "HEAD")


def run_rows(rows: Sequence[Row], root: Path, storage: Path, at_once: int, done: Callable[[Row, int], None]) -> None:
    """Runs rows, so many at once, their output in NAME.log in the storage, the commit of each in NAME.commit.

    Args:
        rows: in this order.
        root: of the checkout, where jobs start.
        storage: folder of the runs.
        at_once: processes side by side.
        done: is told of each row that has ended, in any thread, and its exit status; -N is that of signal N.

    Raises:
        ValueError: files differ from the commit, or a row was begun on another one.
    """
    storage.mkdir(parents=True, exist_ok=True)

    def run(row: Row) -> None:
        _check_commit(storage / f"{row.name}.commit", commit_of(root))
        command = [sys.executable, "jobs/quantize_imagenet.py", *row.arguments, "--storage-path", str(storage)]
        with (storage / f"{row.name}.log").open("a", encoding="utf-8") as log:
            ended = subprocess.run(command, cwd=root, check=False, stdout=log, stderr=subprocess.STDOUT)
        done(row, ended.returncode)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(run, rows))


def _check_commit(file: Path, commit: str) -> None:
    """A row runs on one commit from its first start to its end: the one that its record names."""
    if not file.is_file():
        write_text(file, f"{commit}\n")
    elif (begun := file.read_text(encoding="utf-8").strip()) != commit:
        raise ValueError(f"{file.stem} was begun on commit {begun}: check that out, or delete the run and {file}")


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()
