"""Ray Tune, driven by the registry of a sweep."""

import contextlib
import os
import pickle
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from ray import tune

from inq_ray.cluster.failure import RunFailedError
from inq_ray.cluster.fit import evaluate_here
from inq_ray.cluster.mailbox import deliver
from inq_ray.cluster.placement import NoRoomError, worker_resources
from inq_ray.cluster.trainer import evaluate
from inq_ray.cluster.tune.search import RegistryScheduler, RegistrySearcher
from inq_ray.cluster.tune.slots import count_slots, is_run_by_trials
from inq_ray.cluster.tune.trial import run_trial
from inq_ray.sweep.console import SweepConsole
from inq_ray.sweep.incidents import SweepIncidents
from inq_ray.sweep.plan import SweepPlan, config_on_test_set
from inq_ray.sweep.reuse.stages import StageStore, discard_checkpoints
from inq_ray.sweep.trials.ranking import best_of, savings
from inq_ray.sweep.trials.registry import TrialRegistry
from inq_ray.sweep.trials.report import Refused, Report
from inq_ray.sweep.trials.trial import Trial
from inq_ray.sweep.waiting import TrialWaits
from inq_ray.tracking.together import Together
from inq_ray.training.config import RunConfig
from inq_ray.training.evaluation.accuracy import Accuracy

# Turns off Tune's own output, loggers and signal handlers; the sweep has its own.
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
# Resources of a trial's own process, in addition to its workers: it computes nothing, but Tune requires some.
_OF_A_DRIVER = {"CPU": 0.0, "memory": 1.0}


class Drive:
    """Connects Tune, the registry, the folder and the console; runs in the driver's main thread.

    Args:
        plan: Plan of the sweep.
        registry: Its trials, and the choice of the next.
        console: Console output.
        state: State from the folder; None = the sweep begins.

    Attributes:
        refusal: Why nothing is quantized, if the first trial found a wrong accuracy of the given weights.
    """

    def __init__(
        self, plan: SweepPlan, registry: TrialRegistry, console: SweepConsole, state: Mapping[str, Any] | None
    ) -> None:
        self.refusal: str | None = None
        self._plan = plan
        self._registry = registry
        self._console = console
        self._stages = StageStore(plan.folder.stages)
        self._is_full = False
        self._is_here = False
        # Accuracies on the test set by trial name; a state without the name is ignored.
        tested = None if state is None else state.get("tested")
        self._tests = {} if state is None or tested is None else {tested: Accuracy(**state["test"])}

    @property
    def test(self) -> Accuracy | None:
        """Return the accuracy of the best trial on the test set; None until it is measured."""
        best = best_of(self._registry.trials)
        return None if best is None else self._tests.get(best.name)

    def tune(self) -> bool:
        """Run the remaining trials; return whether all are finished.

        Raises:
            ValueError: A trial would never fit; nothing was started.
        """
        plan, registry = self._plan, self._registry
        num_slots = count_slots(plan.base.cluster, plan.options.max_concurrent, self._console.say)
        self._save()
        self._console.start(plan, registry.trials, num_slots)
        self._console.wait_for("starting the first trial")
        shutil.rmtree(plan.folder.tune, ignore_errors=True)  # never read back, because it is pickled
        self._is_here = is_run_by_trials(plan.base.cluster)
        resources = worker_resources(plan.base.cluster) if self._is_here else _OF_A_DRIVER
        reporter = Together(self._console, SweepIncidents(plan.folder.incidents))
        with deliver(reporter) as mailbox, _settings(), _interruptible(), _reported(self._console.waiting):
            tuner = tune.Tuner(
                tune.with_resources(tune.with_parameters(run_trial, environment=_of_trackers(plan.base)), resources),
                tune_config=tune.TuneConfig(
                    search_alg=RegistrySearcher(lambda: self._suggest(num_slots, mailbox), self._fail),
                    scheduler=RegistryScheduler(self._take),
                    num_samples=-1,
                    trial_name_creator=_name_of,
                    trial_dirname_creator=_name_of,
                    # For a process that is reused Tune drops the placement group that it has just asked for, and Ray
                    # 2.60 often loses what was reserved for it: in a trial's own process that would be its CPUs.
                    reuse_actors=not self._is_here,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=str(plan.folder.tune),
                    failure_config=tune.FailureConfig(max_failures=plan.options.retries),
                    verbose=0,
                ),
            )
            # At its end Tune reads back the errors of its trials, which a full disk may have truncated. The registry
            # has them already.
            with contextlib.suppress(EOFError, pickle.UnpicklingError):
                tuner.fit()
        self._registry.interrupt()
        self._save()
        return registry.is_over

    def measure(self, best: Trial) -> None:
        """Measure the best trial on the test set, unless this was done."""
        config = config_on_test_set(self._plan, best)
        if self.test is not None or config is None:
            return
        try:
            fingerprint = self._plan.origin.fingerprint
            if self._is_here and not config.cluster.use_gpu:
                self._tests[best.name] = evaluate_here(config, fingerprint=fingerprint)
            else:
                self._tests[best.name] = evaluate(config, fingerprint=fingerprint)
        except (RunFailedError, NoRoomError, OSError) as error:
            self._console.say(
                f"the best trial could not be measured on the test set; run the command again to retry: {error}"
            )
        self._save()

    def tidy(self, is_over: bool) -> None:
        """Delete files that are no longer needed."""
        shutil.rmtree(self._plan.folder.tune, ignore_errors=True)
        for trial in self._registry.trials:
            self._plan.folder.stop_of(trial.name).unlink(missing_ok=True)
            if trial.status == "stopped" and trial.ends:
                discard_checkpoints(trial.config)
        if is_over:
            shutil.rmtree(self._plan.folder.stages, ignore_errors=True)

    def _suggest(self, num_slots: int, mailbox: Any) -> dict[str, Any] | str | None:
        if self.refusal is not None:
            return "FINISHED"
        trial = self._registry.next(num_slots)
        if trial is None:
            return "FINISHED" if self._registry.is_over else None
        self._console.started(trial, self._registry.trials)
        self._save()
        return {
            "spec": self._plan.spec(self._registry, trial).to_json(),
            "name": trial.name,
            "sweep": self._plan.base.output.name,
            "mailbox": mailbox,
            "folder": os.getcwd(),
            "stop": str(self._plan.folder.stop_of(trial.name)),
            "is_here": self._is_here,
        }

    def _take(self, name: str, report: Report) -> None:
        trial = self._registry.of(name)
        if trial.is_over:
            return
        self._registry.take(name, report)
        if isinstance(report, Refused) and not self._has_trained():
            self.refusal = report.reason  # the same for every trial, so it is reported once
        else:
            self._console.told(trial, report)
        self._save()
        if trial.status == "stopped":
            try:
                self._plan.folder.stop_of(name).touch()
            except OSError as error:  # such as a full disk
                self._console.say(f"{name}  cannot be stopped, trains on, and does not count: {error}")

    def _has_trained(self) -> bool:
        """Return whether any trial has done more than measure the common initial weights."""
        return any(end.how != "given" for trial in self._registry.trials for end in trial.ends)

    def _fail(self, name: str) -> None:
        trial = self._registry.of(name)
        if not trial.is_over:
            self._registry.fail(name, "its process ended without a result")
            self._console.say(f"{name}  given up  {trial.reason}")
            self._save()

    def _save(self) -> None:
        """Write the state, and delete ends that are no longer needed; a full disk does not end the sweep."""
        for key in self._registry.unneeded():
            self._stages.delete(key)
        best, test = best_of(self._registry.trials), self.test
        name = None if best is None else best.name
        more = {
            "best": name,
            "savings": vars(savings(self._registry.trials)),
            "test": None if test is None else vars(test),
            "tested": None if test is None else name,
        }
        try:
            self._plan.folder.write(self._plan.state(self._registry, **more))
            self._plan.folder.write_table(self._registry.trials)
        except OSError as error:
            if not self._is_full:
                self._console.say(f"the sweep's state cannot be written, the sweep continues: {error}")
            self._is_full = True
        else:
            self._is_full = False


def _of_trackers(base: RunConfig) -> dict[str, str]:
    """Return this process's environment variables for trackers: trials run elsewhere, in their node's environment."""
    if not base.output.track:
        return {}
    return {name: value for name, value in os.environ.items() if name.startswith(("MLFLOW_", "WANDB_"))}


def _name_of(trial: Any) -> str:
    return f"{trial.config['name']}-{trial.trial_id}"


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Turn off Tune's output, except for settings made by the user."""
    missing = [name for name in _QUIET if name not in os.environ]
    os.environ.update({name: _QUIET[name] for name in missing})
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]


@contextlib.contextmanager
def _reported(waiting: TrialWaits) -> Iterator[None]:
    """Report what trials wait for during the block, while Tune blocks the main thread."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            waiting.report()

    threading.Thread(target=watch, name="inq_ray-waiting", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM end a sweep like Ctrl-C, which Tune handles; the handlers are restored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
