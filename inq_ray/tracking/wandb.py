"""Weights & Biases: a server, or with WANDB_MODE=offline files in the run's folder for a later `wandb sync`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inq_ray.tracking.metrics import Scalar, Tracker

_PROJECT = "inq_ray"

# Read by wandb on import. Silent, because its lines would mix with those of the console.
_DEFAULTS = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}

# wandb's default retries without end.
_START_SECONDS = 30.0
_FINISH_SECONDS = 45.0


def needs() -> tuple[str, ...]:
    """Return the required packages."""
    return ("wandb",)


def start(name: str, parameters: Mapping[str, Scalar], folder: Path) -> Tracker:
    """Start a run in the project WANDB_PROJECT, or "inq_ray".

    It sends only what is passed to it: no console output, no source code, no machine statistics.
    """
    for variable, value in _DEFAULTS.items():
        os.environ.setdefault(variable, value)
    import wandb

    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        silent=True,
        x_disable_stats=True,
        init_timeout=_START_SECONDS,
        login_timeout=_START_SECONDS,
        finish_timeout=_FINISH_SECONDS,
        finish_timeout_raises=True,
    )
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or _PROJECT,
        name=name,
        config=dict(parameters),
        dir=str(folder),
        reinit="create_new",
        settings=settings,
    )
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    return _Wandb(run)


class _Wandb:
    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        self._run.log({**metrics, "epoch": epoch})

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        self._run.summary.update(dict(summary or {}))
        self._run.finish(exit_code=1 if summary is None else 0)
