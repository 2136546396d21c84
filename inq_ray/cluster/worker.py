"""Training function of Ray Train workers: finds device and reporter, then runs."""

import contextlib
from collections.abc import Callable
from typing import Any

import ray.train
import ray.train.torch
import torch

from inq_ray.cluster.failure import MailboxLostError
from inq_ray.cluster.mailbox import MailboxReporter
from inq_ray.cluster.node.notice import Notice
from inq_ray.cluster.node.shared_folders import check_seen, folders_of
from inq_ray.cluster.node.whereabouts import whereabouts
from inq_ray.training.attempt import Attempt
from inq_ray.training.checkpoint.clock import StopError
from inq_ray.training.config import RunConfig
from inq_ray.training.evaluation.evaluate import evaluate_only
from inq_ray.training.report.events import Reporter, SilentReporter, WorkersPlaced
from inq_ray.training.run import run
from inq_ray.training.run_folder import RunFolder


def work(arguments: dict[str, Any]) -> None:
    """Run or evaluate on this worker: the training function of a :class:`ray.train.torch.TorchTrainer`.

    Args:
        arguments: "config" (JSON), "fingerprint" (of the data), "mailbox" (actor handle), "evaluate" (bool), "mark"
            (from :func:`inq_ray.training.attempt.begun`, or None).
    """
    config = RunConfig.from_json(arguments["config"])
    torch.set_num_threads(config.cluster.cpus_per_worker)
    notice = Notice()
    if ray.train.get_context().get_world_rank() > 0:
        _work(config, arguments, SilentReporter(), notice.has_come)
        return
    with contextlib.closing(MailboxReporter(arguments["mailbox"])) as mailbox:
        is_over = _work(config, arguments, mailbox, lambda: notice.has_come() or mailbox.is_asked_to_stop())
        if mailbox.is_lost and not is_over:
            raise MailboxLostError("the actor for reports and stop requests is lost; the run left a checkpoint")


def _work(
    config: RunConfig, arguments: dict[str, Any], reporter: Reporter, is_asked_to_stop: Callable[[], bool]
) -> bool:
    """Return whether the work is finished; else the run was stopped, and has left a checkpoint."""
    device = ray.train.torch.get_device()
    if arguments["evaluate"]:
        reporter.report(evaluate_only(config, device=device, fingerprint=arguments["fingerprint"]))
        return True
    reporter.report(WorkersPlaced(tuple(whereabouts(device))))
    check_seen(folders_of(config), arguments["mark"])
    try:
        run(
            config,
            device=device,
            reporter=reporter,
            folder=RunFolder.planned(config, Attempt(arguments["mark"], tuple(folders_of(config).values()))),
            fingerprint=arguments["fingerprint"],
            is_asked_to_stop=is_asked_to_stop,
        )
    except StopError:  # it has been reported, and the driver finds no summary
        return False
    return True
