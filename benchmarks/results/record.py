"""What is kept of a run: one small JSON file."""

import dataclasses
import json
import math
import re
import shlex
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from inq_ray.core.channels import AnyCodebook
from inq_ray.data.source import open_source
from inq_ray.export.codes_file import read_codes
from inq_ray.export.errors import VerificationError
from inq_ray.export.verify import verify
from inq_ray.training.config import RunConfig
from inq_ray.training.flags.parse import parse
from inq_ray.training.run_folder import RunFolder

JOB = "jobs/quantize_imagenet.py"
Record = dict[str, Any]
_OF_STAGE = ("portion", "top1_quantized", "num_bn_images", "top1")


def record_of(path: Path, *, commit: str, command: str, num_images: int | None) -> Record:
    """Return what is kept of a finished run.

    Args:
        path: Absolute path of the run's folder.
        commit: Commit of the code that ran.
        command: Command that started the run; {seed} and {name} are replaced by the run's own.
        num_images: Number of images on which accuracy was measured; None: counted from the data.

    Raises:
        ValueError: The run is unfinished or fails verification, or an argument contradicts it.
    """
    folder, name = RunFolder(path), path.name
    summary = folder.read_summary()
    if summary is None:
        raise ValueError(f"{path}: the run is not finished (it has no summary.json)")
    config = RunConfig.from_json(json.dumps(summary["config"]))
    holdout, limit = config.data.holdout, config.training.limit_batches
    if config.plain:
        raise ValueError(f"{name}: nothing was quantized (--plain)")
    if limit is not None and not holdout:
        raise ValueError(f"{name}: a trial with --limit-batches {limit} on test images is no result")
    if not re.fullmatch(r"[0-9a-f]{7,40}", commit):
        raise ValueError(f"--commit must be 7 to 40 hex digits, got {commit!r}")
    codes = _verified_codes(folder, summary["verification"]["digest"])
    command = command.replace("{seed}", str(config.training.seed)).replace("{name}", name)
    _check_command(command, config)
    rows = [json.loads(line) for line in folder.metrics_jsonl.read_text(encoding="utf-8").splitlines()]
    num_images = num_images or holdout or open_source(config.data.data).info.num_test
    _check_num_images(num_images, [row[figure] for row in rows for figure in ("top1", "top5")])
    record = {
        **_settings(config),
        **_figures(summary, rows),
        "command": command,
        "commit": commit,
        "name": name,
        "num_correct": round(summary["top1"] * num_images / 100),
        "num_images": num_images,
    }
    if holdout:
        return record
    tensors = {tensor: levels_of(*each) for tensor, each in codes.items()}
    return {**record, "tensors": tensors, "verification": summary["verification"]}


def _settings(config: RunConfig) -> Record:
    values, float_epochs, stage_epochs = _portable(config), config.float_epochs, config.stage_epochs
    return {
        "bits": config.quantization.weight_bits,
        "codebook": config.quantization.codebook,
        "codebook_per": config.quantization.codebook_per,
        "levels": config.quantization.levels,
        "config": values,
        "data": values["data"]["data"],
        "epochs": {"float": float_epochs, "by_stage": stage_epochs, "all": float_epochs + sum(stage_epochs)},
        "network": config.network.arch,
        "portions": config.quantization.iterative_steps,
        "seed": config.training.seed,
        "strategy": config.quantization.strategy,
    }


def _figures(summary: Record, rows: list[Record]) -> Record:
    """Return accuracies in percent, seconds, and training images per second over all epochs."""
    copied = ("device", "digest", "float_top1", "float_top5", "measured_on", "top1", "top5", "versions", "world_sizes")
    trained = [row for row in rows if row["train_seconds"]]
    seconds = sum(row["train_seconds"] for row in trained)
    num_trained = sum(row["images_per_second"] * row["train_seconds"] for row in trained)
    return {
        **{figure: summary[figure] for figure in copied},
        "images_per_second": round(num_trained / seconds, 1) if seconds else None,
        "seconds": round(summary["seconds"], 1),
        "stages": [{key: stage.get(key) for key in _OF_STAGE} for stage in summary["stages"]],
        "train_seconds": round(summary["spent"]["seconds"], 1),
    }


def levels_of(codebook: AnyCodebook, codes: Tensor) -> Record:
    """Count the weights (codes: uint8 [*]) at each level: those at 0, and [k, number at -2^k, number at 2^k]."""
    levels, counts = (each.tolist() for each in torch.unique(codebook.decode(codes, torch.float64), return_counts=True))
    powers: dict[int, list[int]] = {}
    for level, num in zip(levels, counts, strict=True):
        if level:
            powers.setdefault(math.frexp(level)[1] - 1, [0, 0])[level > 0] = num
    num_zero = int((codes == 0).sum())
    shares = [num / codes.numel() for num in counts]
    return {
        "num_weights": codes.numel(),
        "num_zero": num_zero,
        "zeros": round(num_zero / codes.numel(), 6),
        "powers": [[k, *signs] for k, signs in sorted(powers.items())],
        "entropy": round(sum(-share * math.log2(share) for share in shares), 6),
        "num_bits": codebook.num_bits,
        "n_1": codebook.n_1,
        "n_2": codebook.n_2,
    }


def as_text(record: Record) -> str:
    """Return a record as JSON, one line for each value."""
    lines = (f" {json.dumps(name)}: {json.dumps(value, sort_keys=True)}" for name, value in sorted(record.items()))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_records(folder: Path) -> list[Record]:
    """Return all records of a folder by name; none if there is no folder."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def fields_of(config: Record) -> dict[str, Any]:
    """Return the values of a configuration by "section.field"."""
    sections = {section: values for section, values in config.items() if isinstance(values, dict)}
    return {f"{section}.{field}": value for section, values in sections.items() for field, value in values.items()}


def _verified_codes(folder: RunFolder, digest: str) -> dict[str, tuple[AnyCodebook, Tensor]]:
    """Verify the files again, because they may have changed since summary.json was written."""
    codes = read_codes(folder.result / "codes.safetensors")
    try:
        found = verify(folder.result, codes)
    except VerificationError as error:
        raise ValueError(f"{folder.path}: {error}") from error
    if found.digest != digest:
        raise ValueError(f"{folder.path}: model.safetensors is not the one that summary.json describes")
    return codes


def _check_command(command: str, config: RunConfig) -> None:
    """Check that anybody can run the command in a checkout, and that it asks for this configuration."""
    words = shlex.split(command)
    if JOB not in words:
        raise ValueError(f"--command must run {JOB}, got {command!r}")
    for word in words:
        if re.match(r"(.*=)?[/~]", word):
            raise ValueError(f"--command names {word}, a path of one machine: give the path from the checkout")
    asked = fields_of(_portable(parse(words[words.index(JOB) + 1 :]).run))
    for name, value in fields_of(_portable(config)).items():
        if not name.startswith("output.") and asked[name] != value:
            raise ValueError(f"--command asks for {name} {asked[name]!r}, the run had {value!r}")


def _portable(config: RunConfig) -> Record:
    """Return the configuration with the last part of each path, because folders differ between machines."""
    values: Record = dataclasses.asdict(config)
    for section in ("data", "network", "training", "output"):
        for field, value in values[section].items():
            if isinstance(value, str) and "/" in value and field != "arch":
                values[section][field] = PurePosixPath(value).name
    return values


def _check_num_images(num_images: int, percentages: list[float]) -> None:
    for percent in percentages:
        num = percent * num_images / 100
        if abs(num - round(num)) > 1e-6:
            raise ValueError(f"{percent} % of {num_images} images is no whole number: give the right --images N")
