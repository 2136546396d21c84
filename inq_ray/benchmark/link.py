"""Speed of the link between workers, by all-reduces of known sizes.

Bandwidth is the bus bandwidth of NCCL's tests (nccl-tests, doc/PERFORMANCE.md): bytes of the message / seconds ·
2 (n - 1) / n on n workers. A ring sends so many bytes over each link, so the number compares with the speed of the
hardware at any n.
"""

import functools

import torch
import torch.distributed as dist

from inq_ray.benchmark.figures import Figure
from inq_ray.benchmark.subject import Subject
from inq_ray.benchmark.turns import take_turns, together
from inq_ray.distributed.wire import world_size

# A bucket of DDP, and a message whose bytes take next to no time.
_LARGE_BYTES = 25_000_000
_SMALL_BYTES = 4_000


def measure_link(subject: Subject) -> list[Figure]:
    """Return bandwidth and latency; nothing with one worker. Every rank calls it."""
    if world_size() == 1:
        return []
    messages = {num: torch.zeros(num // 4, device=subject.device) for num in (_LARGE_BYTES, _SMALL_BYTES)}
    cases = {
        str(num): together(functools.partial(dist.all_reduce, message), subject.device)
        for num, message in messages.items()
    }
    seconds = take_turns(cases, subject.settings.effort.num_rounds)
    bandwidths = [bus_bandwidth(_LARGE_BYTES, each, world_size()) for each in seconds[str(_LARGE_BYTES)]]
    return [Figure.of("link", bandwidths), Figure.of("link_latency", seconds[str(_SMALL_BYTES)])]


def bus_bandwidth(num_bytes: int, seconds: float, num_workers: int) -> float:
    """Return the bus bandwidth of an all-reduce, bytes per second.

    Args:
        num_bytes: Bytes of the message of each worker.
        seconds: Time.
        num_workers: Number of workers.
    """
    return num_bytes / seconds * 2 * (num_workers - 1) / num_workers
