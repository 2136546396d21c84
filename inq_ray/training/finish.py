"""End of a run: its result is written, read back and verified."""

import dataclasses
from typing import Any

from inq_ray.distributed.wire import rank, world_size
from inq_ray.export.formats import write_result
from inq_ray.export.result import Result
from inq_ray.export.verify import verify
from inq_ray.files.shown import shown
from inq_ray.scheduler import INQScheduler
from inq_ray.storage.retry import retry
from inq_ray.training.config import RunConfig
from inq_ray.training.facts import result_facts
from inq_ray.training.journal import Journal
from inq_ray.training.report.images import describe_images
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.summary import figures, surroundings
from inq_ray.training.task.build import Task


def finish(
    config: RunConfig, task: Task, inq: INQScheduler | None, journal: Journal, folder: RunFolder, digest: str
) -> dict[str, Any]:
    """Write the result and verify the files; summary.json comes last. Every rank calls it, rank 0 writes.

    Args:
        config: Configuration of the run.
        task: The final network.
        inq: Masks and codes; None if nothing was quantized.
        journal: Journal of the run.
        folder: Folder of the run.
        digest: Digest of the network, the same on every rank.

    Returns:
        The summary; on ranks other than 0 without what only rank 0 knows.

    Raises:
        ValueError: Result, metrics or summary cannot be written.
        VerificationError: The written files are not correct.
    """
    mean_bits = None if inq is None else _mean_bits(inq)
    summary = {**figures(config, journal.rows), "mean_bits": mean_bits, "digest": digest, "world_size": world_size()}
    if rank() != 0:
        return summary
    retry(folder.check_writer, shown(folder.path), verb="write to")
    state = task.model.state_dict()
    result = Result(state, inq.state if inq else {}, result_facts(config, task, summary, digest))
    write_result(folder.result, result, config.output.name or "model")
    verification = verify(folder.result, inq.state if inq else {})
    journal.flush_metrics()
    summary |= {
        **journal.summary(),
        "verification": dataclasses.asdict(verification),
        "images": describe_images(config.data, config.network, task.info, is_trained=True),
        "num_classes": task.info.num_classes,
        "images_in_memory": not task.info.is_streamed,
        **surroundings(task.to_input.device),
        "config": dataclasses.asdict(config),
    }
    folder.write_summary(summary)
    return summary


def _mean_bits(inq: INQScheduler) -> float:
    """Return the bits of a quantized weight, averaged over all of them."""
    counts = [(state.codes.numel(), state.codebook.num_bits) for state in inq.state.values()]
    return sum(count * num_bits for count, num_bits in counts) / sum(count for count, _ in counts)
