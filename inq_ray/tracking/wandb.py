"""Weights & Biases: a server, or with WANDB_MODE=offline files in the run's folder, which `wandb sync` sends later."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inq_ray.tracking.metrics import Scalar, Tracker

_PROJECT = "inq_ray"

# Read when wandb is imported. Silent: its lines would run into those of the console.
_DEFAULTS = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}

# By itself wandb would try without end.
_START_SECONDS = 30.0
_FINISH_SECONDS = 45.0


def needs() -> tuple[str, ...]:
    """Return the packages that it needs."""
    return ("wandb",)


def start(name: str, parameters: Mapping[str, Scalar], folder: Path) -> Tracker:
    """Begins a run in the project that WANDB_PROJECT names, else in "inq_ray".

    It keeps to what is handed over: no console output, no source code, no figures of the machine.
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
