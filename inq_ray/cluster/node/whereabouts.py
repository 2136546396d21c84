"""Placement of the ranks of a run: a line for each, which rank 0 reports at the start."""

import socket

import torch
import torch.distributed as dist

from inq_ray.cluster.node.interface import link_in_words, node_address
from inq_ray.distributed.wire import gather_bytes, rank


def whereabouts(device: torch.device) -> list[str]:
    """Return node, device and link of each rank; every rank calls it and gets all lines.

    Args:
        device: Device of this rank.
    """
    link = link_in_words(dist.get_backend())
    line = f"rank {rank()}: node {node_address()} ({socket.gethostname()}), {_in_words(device)}, {link}"
    return [text.decode(errors="replace") for text in gather_bytes(line.encode(errors="replace"))]


def _in_words(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{device} with {threads} thread{'s' if threads > 1 else ''}"
