"""The folder of a run: the one place that knows the names of its files."""

import csv
import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from inq_ray.training.config import RunConfig
from inq_ray.training.reporter import Row


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Files of one run.

    Attributes:
        path: absolute.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The configuration; ``--config`` starts the same run again."""
        return self.path / "config.json"

    @property
    def metrics_jsonl(self) -> Path:
        """A line for each :class:`Row`."""
        return self.path / "metrics.jsonl"

    @property
    def metrics_csv(self) -> Path:
        """The same as a table."""
        return self.path / "metrics.csv"

    @property
    def summary(self) -> Path:
        """What came out; there only when the run is finished and verified."""
        return self.path / "summary.json"

    @property
    def result(self) -> Path:
        """Folder of model.safetensors and codes.safetensors."""
        return self.path

    @property
    def ray(self) -> Path:
        """What Ray Train keeps for itself."""
        return self.path / ".ray"

    @classmethod
    def create(cls, config: RunConfig) -> "RunFolder":
        """Makes the folder of a new run, with its configuration in it.

        Raises:
            ValueError: a run of that name exists, or the folder cannot be made.
        """
        folder = cls.planned(config)
        if config.output.overwrite and folder.config.is_file():
            shutil.rmtree(folder.path)
        try:
            folder.path.parent.mkdir(parents=True, exist_ok=True)
            folder.path.mkdir()
            write_whole(folder.config, config.to_json() + "\n")
        except FileExistsError:
            raise ValueError(folder.taken()) from None
        except OSError as error:
            raise ValueError(f"--storage-path {config.output.storage_path}: cannot write there ({error})") from None
        return folder

    @classmethod
    def planned(cls, config: RunConfig) -> "RunFolder":
        """The folder that a run will have; nothing is made."""
        assert config.output.name is not None
        return cls(Path(config.output.storage_path).expanduser().absolute() / config.output.name)

    def check_free(self, overwrite: bool) -> None:
        """Refuses a name that is taken.

        Raises:
            ValueError: it is, and is not to be overwritten.
        """
        if self.path.exists() and not (overwrite and self.config.is_file()):
            raise ValueError(self.taken())

    def taken(self) -> str:
        """What to say where the folder exists."""
        if not self.config.is_file():
            return f"--name {self.path.name}: {self.path} exists and is no run: take another --name"
        state = "a finished run" if self.summary.is_file() else "an unfinished run"
        return f"--name {self.path.name}: {self.path} holds {state}: take another --name, or delete it by --overwrite"

    def append(self, row: Row) -> None:
        """Adds a line to both metrics files."""
        values = dataclasses.asdict(row)
        with self.metrics_jsonl.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(values) + "\n")
        is_new = not self.metrics_csv.exists()
        with self.metrics_csv.open("a", encoding="utf-8", newline="") as table:
            writer = csv.DictWriter(table, list(values))
            if is_new:
                writer.writeheader()
            writer.writerow(values)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes summary.json, the last file of a run."""
        write_whole(self.summary, json.dumps(summary, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Writes a text file beside and renames it, so that it is never seen half written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with beside.open("w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    beside.replace(path)


def default_name(config: RunConfig) -> str:
    """Network, bits (or "float") and time."""
    kind = "float" if config.plain else f"{config.quantization.weight_bits}bit"
    return f"{config.network.arch}-{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
