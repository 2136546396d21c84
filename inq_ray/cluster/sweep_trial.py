"""A trial in a process of Ray Tune: it builds its own Ray Train run, as a single run is built."""

import contextlib
import os
from typing import Any

from ray import tune

from inq_ray.cluster.failure import RunFailedError
from inq_ray.cluster.trainer import quantize
from inq_ray.sweep.attempt import Attempt, Order
from inq_ray.sweep.console import FromTrial
from inq_ray.sweep.trial import Failed, Report, Stumbled
from inq_ray.training.reporter import Event, Note, Progress

# Of what a trial reports to Tune: the name under which the sweep finds it.
REPORT = "report"


def run_trial(arguments: dict[str, Any]) -> None:
    """The trainable.

    Where Tune stops a trial, its process ends, and Ray ends the workers, which belong to it.

    Args:
        arguments: "order" (JSON of :class:`inq_ray.sweep.attempt.Order`), "name" (of the trial), "sweep" (its name),
            "mailbox" (actor handle), "folder" (where the job was started).
    """
    with contextlib.suppress(OSError):  # another node may not have it
        os.chdir(arguments["folder"])
    # Trackers put the runs of a sweep together by these.
    os.environ.setdefault("WANDB_RUN_GROUP", arguments["sweep"])
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", arguments["sweep"])
    order = Order.from_json(arguments["order"])
    attempt = Attempt(order, _tell)
    try:
        summary = attempt.begin()
        if summary is None:
            both = _Both(attempt, arguments["name"], arguments["mailbox"])
            summary = quantize(order.config, both, fingerprint=order.fingerprint)
        attempt.finish(summary)
    except (RunFailedError, ValueError, OSError) as error:
        line = " ".join(str(error).split()) or type(error).__name__
        if "DivergedError" in line:  # it would again
            _tell(Failed(line))
            return
        _tell(Stumbled(line))
        raise


def _tell(report: Report) -> None:
    """Reports, and waits for the sweep's answer; where that is to stop, it does not return."""
    tune.report({REPORT: report})


class _Both:
    """The reporter of a trial's run: to the attempt, and what a person may see to the driver."""

    def __init__(self, attempt: Attempt, name: str, mailbox: Any) -> None:
        self._attempt = attempt
        self._name = name
        self._mailbox = mailbox

    def report(self, event: Event) -> None:
        if isinstance(event, Progress) or (isinstance(event, Note) and not event.text.startswith("going on from")):
            self._mailbox.put.remote(FromTrial(self._name, event))
        self._attempt.report(event)
