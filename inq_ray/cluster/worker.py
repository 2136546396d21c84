"""What a Ray Train worker does: finds its place, then runs."""

from typing import Any

import ray.train
import ray.train.torch
import torch

from inq_ray.cluster.mailbox import MailboxReporter
from inq_ray.training.config import RunConfig
from inq_ray.training.reporter import Reporter, SilentReporter
from inq_ray.training.run import evaluate_only, run
from inq_ray.training.run_folder import RunFolder


def work(arguments: dict[str, Any]) -> None:
    """The training function of a :class:`ray.train.torch.TorchTrainer`.

    Args:
        arguments: "config" (JSON), "fingerprint" (of the data), "mailbox" (actor handle), "evaluate" (bool).
    """
    config = RunConfig.from_json(arguments["config"])
    torch.set_num_threads(config.cluster.cpus_per_worker)
    device = ray.train.torch.get_device()
    if ray.train.get_context().get_world_rank() == 0:
        reporter: Reporter = MailboxReporter(arguments["mailbox"])
    else:
        reporter = SilentReporter()
    if arguments["evaluate"]:
        reporter.report(evaluate_only(config, device=device, fingerprint=arguments["fingerprint"]))
    else:
        folder = RunFolder.planned(config)
        run(config, device=device, reporter=reporter, folder=folder, fingerprint=arguments["fingerprint"])
