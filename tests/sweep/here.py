"""Sweeps of tiny runs on digits, in this process and one trial after the other: all but Ray."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from inq_ray.sweep.plan import SweepPlan, plan_sweep
from inq_ray.sweep.reuse.stages import StageStore
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.sweep.space.space import Space
from inq_ray.sweep.trials.registry import TrialRegistry
from inq_ray.sweep.trials.report import Report
from inq_ray.sweep.trials.runner import TrialRunner
from inq_ray.sweep.trials.trial import Trial
from inq_ray.training.run import run
from inq_ray.training.run_folder import RunFolder
from tests.training.runs import tiny_config


class StopTrialError(Exception):
    """The sweep says that a trial is not to go on."""


def tiny_plan(storage: Path, space: Space, options: SearchOptions | None = None, **sections: Any) -> SweepPlan:
    training = {"batch_size": 200, "limit_batches": 2, "float_epochs": 1, "epochs": 1, **sections.pop("training", {})}
    base = tiny_config(storage, "sweep", training=training, **sections)
    return plan_sweep(base, space, options or SearchOptions())


class Here:
    """Runs what a registry says; keeps what was reported.

    Args:
        on_report: called with each report before the registry takes it; may raise, as a process may be killed.
    """

    def __init__(self, plan: SweepPlan, on_report: Callable[[Trial, Report], None] | None = None) -> None:
        self.plan = plan
        self.reports: list[tuple[str, Report]] = []
        plan.folder.path.mkdir(parents=True, exist_ok=True)
        self.registry: TrialRegistry = plan.registry(plan.folder.read())
        self._on_report = on_report

    def run(self) -> None:
        self._save()
        while (trial := self.registry.next(1)) is not None:
            self._run(trial)

    def _run(self, trial: Trial) -> None:
        def tell(report: Report) -> None:
            if self._on_report is not None:
                self._on_report(trial, report)
            self.reports.append((trial.name, report))
            goes_on = self.registry.take(trial.name, report)
            self._save()
            if not goes_on:
                raise StopTrialError

        runner = TrialRunner(self.plan.spec(self.registry, trial), tell)
        try:
            summary = runner.begin()
            if summary is None:
                folder = RunFolder.planned(trial.config)
                if not folder.config.is_file():
                    RunFolder.create(trial.config)
                summary = run(trial.config, device=torch.device("cpu"), reporter=runner, folder=folder)
            runner.finish(summary)
        except StopTrialError:
            return

    def _save(self) -> None:
        store = StageStore(self.plan.folder.stages)
        for key in self.registry.unneeded():
            store.delete(key)
        self.plan.folder.write(self.plan.state(self.registry))
        self.plan.folder.write_table(self.registry.trials)
