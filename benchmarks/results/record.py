"""What is kept of a run: one small JSON file."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.results.command import check_command, portable
from benchmarks.results.levels import describe
from inq_ray.data.source import open_source
from inq_ray.export.codes_file import read_codes
from inq_ray.export.errors import VerificationError
from inq_ray.export.verify import verify
from inq_ray.training.config import RunConfig
from inq_ray.training.run_folder import RunFolder

Record = dict[str, Any]


def record_of(
    folder: RunFolder,
    *,
    commit: str,
    command: str,
    num_images: int | None = None,
    hardware: str | None = None,
    note: str | None = None,
    against: str | None = None,
) -> Record:
    """What is kept of a finished run.

    Args:
        folder: of the run.
        commit: of the code that ran.
        command: that began it, as anybody can give it in a checkout; {seed} and {name} stand for the run's own.
        num_images: on which accuracy was measured; by default those held out, or the test set's, from the data.
        hardware: what it ran on, in words.
        note: what is to be said of it.
        against: name of the run with which this one makes a pair; {seed} stands for the run's own.

    Raises:
        ValueError: the run is not finished, does not stand the proof, or what is said of it is not so; one line.
    """
    summary = folder.read_summary()
    if summary is None:
        raise ValueError(f"{folder.path}: the run is not finished (it has no summary.json)")
    config = RunConfig.from_json(json.dumps(summary["config"]))
    name = folder.path.name
    if config.plain:
        raise ValueError(f"{name}: nothing was quantized (--plain)")
    if not re.fullmatch(r"[0-9a-f]{7,40}", commit):
        raise ValueError(f"--commit must be 7 to 40 hex digits, got {commit!r}")
    holdout, limit = config.data.holdout, config.training.limit_batches
    if limit is not None and not holdout:
        raise ValueError(f"{name}: a trial by --limit-batches {limit} on test images is no result")
    _check_proof(folder, summary)
    words = {"seed": config.training.seed, "name": name}
    command = _filled(command, words)
    check_command(command, config)
    rows = [json.loads(line) for line in folder.metrics_jsonl.read_text(encoding="utf-8").splitlines()]
    num_images = num_images or _num_images(config)
    record = {
        **_what_ran(config),
        **_accuracies(summary, rows, num_images),
        **_speed(summary, rows),
        "name": name,
        "command": command,
        "commit": commit,
        "config": portable(config),
        "device": summary.get("device", "cuda" if config.cluster.use_gpu else "cpu"),
        "digest": summary["digest"],
        "hardware": hardware,
        "measured_on": summary["measured_on"],
        "note": note,
        "versions": {"ray": None, **summary["versions"]},
        "world_sizes": summary["world_sizes"],
    }
    if holdout:
        return {**record, "against": against and _filled(against, words)}
    codes = read_codes(folder.path / "codes.safetensors")
    return {
        **record,
        "tensors": {tensor: describe(codebook, each) for tensor, (codebook, each) in codes.items()},
        "verification": summary["verification"],
    }


def as_text(record: Mapping[str, Any]) -> str:
    """The record as JSON with sorted keys, a line for each value and for each tensor."""
    lines = []
    for name, value in sorted(record.items()):
        if name in ("stages", "tensors"):
            opening, closing = ("[", "]") if name == "stages" else ("{", "}")
            parts = (
                [_line(part) for part in value]
                if name == "stages"
                else [f"{_line(tensor)}: {_line(part)}" for tensor, part in value.items()]
            )
            lines.append(f" {_line(name)}: {opening}\n  " + ",\n  ".join(parts) + f"\n {closing}")
        else:
            lines.append(f" {_line(name)}: {_line(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_records(folder: Path) -> list[Record]:
    """All records of a folder, by name; none where there is no folder.

    Raises:
        ValueError: a file is no record, or has another name than its run.
    """
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error})") from None
        if not isinstance(record, dict) or record.get("name") != path.stem:
            raise ValueError(f"{path}: not the record of a run of that name")
        records.append(record)
    return records


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _filled(text: str, words: Mapping[str, Any]) -> str:
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def _check_proof(folder: RunFolder, summary: Mapping[str, Any]) -> None:
    """Proves the files anew: what is kept is what lies there, and not what a summary says of it."""
    try:
        found = verify(folder.result, read_codes(folder.path / "codes.safetensors"))
    except VerificationError as error:
        raise ValueError(f"{folder.path}: {error}") from error
    claimed = summary["verification"]
    if (found.digest, found.num_weights) != (claimed["digest"], claimed["num_weights"]):
        raise ValueError(f"{folder.path}: model.safetensors is not the one that summary.json speaks of")


def _num_images(config: RunConfig) -> int:
    num_images = config.data.holdout
    if not num_images:
        try:
            num_images = open_source(config.data.data, follow_links=config.data.follow_links).info.num_test
        except ValueError as error:
            raise ValueError(f"the test set cannot be counted ({error}): say --images N") from None
    limit = config.training.limit_batches
    return num_images if limit is None else min(num_images, 250 * limit)


def _what_ran(config: RunConfig) -> Record:
    values = portable(config)
    quantization = config.quantization
    return {
        "network": config.network.arch,
        "data": values["data"]["data"],
        "bits": quantization.weight_bits,
        "strategy": quantization.strategy,
        "codebook": quantization.codebook,
        "seed": config.training.seed,
        "portions": list(quantization.iterative_steps),
        "epochs": {
            "float": config.float_epochs,
            "by_stage": list(config.stage_epochs),
            "all": config.float_epochs + sum(config.stage_epochs),
        },
    }


def _accuracies(summary: Mapping[str, Any], rows: list[Record], num_images: int) -> Record:
    """Figures in percent, and the final ones as numbers of images.

    Raises:
        ValueError: an accuracy is no whole number of so many images.
    """
    for row in rows:
        for figure in ("top1", "top5"):
            _whole_number(row[figure], num_images)
    return {
        "float_top1": summary["float_top1"],
        "float_top5": summary["float_top5"],
        "stages": [
            {name: stage[name] for name in ("portion", "top1_quantized", "top1")} for stage in summary["stages"]
        ],
        "top1": summary["top1"],
        "top5": summary["top5"],
        "num_correct": _whole_number(summary["top1"], num_images),
        "num_images": num_images,
    }


def _whole_number(percent: float, num_images: int) -> int:
    exact = percent * num_images / 100
    if abs(exact - round(exact)) > 1e-6:
        raise ValueError(f"{percent} % of {num_images} images is no whole number: say --images N")
    return round(exact)


def _speed(summary: Mapping[str, Any], rows: list[Record]) -> Record:
    """Seconds of the run and of its training, and images a second over all epochs."""
    trained = [(row["images_per_second"], row["train_seconds"]) for row in rows if row["train_seconds"]]
    seconds = sum(each for _, each in trained)
    return {
        "seconds": round(summary["seconds"], 1),
        "train_seconds": round(summary["spent"]["seconds"], 1),
        "images_per_second": round(sum(speed * each for speed, each in trained) / seconds, 1) if trained else None,
    }
