"""Batches of a rank, from any step: read by the rank itself or by loader workers, with the same result.

The rank's process decides which samples make a batch and sends their indices; the reader computes a function of
(samples, seed, epoch) and nothing else.
"""

import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from inq_ray.data.image_set import BadImage, DecodedByRank, Images, Samples
from inq_ray.data.order.epoch import epoch_batches

# Batches that each loader worker prepares in advance.
_PREFETCH = 2
# Images in a validation batch, for any number of ranks.
VALIDATION_BATCH = 250
# Longest wait for one batch from loader workers.
WAIT_SECONDS = 1800.0
# Imported once for all loader workers of a process, before they are forked; the program's own file comes first.
_PRELOADED = ["__main__", "torch", "inq_ray.data.loader", "inq_ray.data.encoded_set"]


class Batch(NamedTuple):
    """A rank's part of a batch.

    Attributes:
        images: uint8 [n, C, H, W], not normalized.
        labels: int64 [n].
        step: Index of the global batch within the epoch.
        bad: Images left out because they could not be read.
    """

    images: Tensor
    labels: Tensor
    step: int
    bad: tuple[BadImage, ...] = ()


class Request(NamedTuple):
    """Contents of a batch.

    Attributes:
        split: Name of the set.
        step: Index of the batch.
        samples: int64 [n], indices within the set.
        augment: Seed and epoch for training; None = as in validation.
    """

    split: str
    step: int
    samples: Tensor
    augment: tuple[int, int] | None


class Loader:
    """Batches of several sets, read by `num_workers` processes that live as long as the loader.

    Attributes:
        sets: Sets by the name that requests use.
        num_workers: Number of processes; 0 = the calling process reads.
    """

    def __init__(self, sets: Mapping[str, Images], *, num_workers: int = 0, pin_memory: bool = False) -> None:
        self.sets = dict(sets)
        self.num_workers = num_workers
        self._requests = _Requests()
        processes: dict[str, Any] = {}
        if num_workers:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(_PRELOADED)
            forkserver.ensure_running()  # imports in the background
            processes = {
                "multiprocessing_context": context,
                "persistent_workers": True,
                "prefetch_factor": _PREFETCH,
                "timeout": WAIT_SECONDS,
                "worker_init_fn": _begin_worker,
            }
        # Its own generator: without one, starting an iteration draws from torch's global generator, and a resumed run
        # would see other dropout than an uninterrupted one.
        self._loader: DataLoader[Batch | _Read | _Failure] = DataLoader(
            _Fetched(self.sets),
            batch_size=None,
            sampler=self._requests,
            collate_fn=_same,
            generator=torch.Generator(),
            pin_memory=pin_memory,
            num_workers=num_workers,
            **processes,
        )

    def start(self) -> None:
        """Start the workers, if any, and wait until all are ready, so that no epoch includes their start."""
        split = next(iter(self.sets))
        nothing = Request(split, 0, torch.empty(0, dtype=torch.int64), None)
        for _ in self.batches([nothing] * self.num_workers):
            pass

    def batches(self, requests: Iterable[Request]) -> Iterator[Batch]:
        """Yield the batches of the requests, in order.

        Raises:
            ValueError: The storage does not respond.
        """
        self._requests.current = requests
        for batch in self._loader:
            if isinstance(batch, _Failure):
                raise ValueError(batch.reason)
            yield self._decoded(batch) if isinstance(batch, _Read) else batch

    def _decoded(self, read: "_Read") -> Batch:
        images = self.sets[read.split]
        assert isinstance(images, DecodedByRank)
        return _batch(images.decode(read.images), read.step)


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Return the number of complete global batches in an epoch; the incomplete last one is dropped.

    Raises:
        ValueError: There is none.
    """
    if not 1 <= batch_size <= num_samples:
        raise ValueError(f"{batch_size=} (global) must be from 1 to the number of training samples, {num_samples}")
    return num_samples // batch_size


def train_requests(
    images: Images,
    indices: Tensor,
    *,
    batch_size: int,
    rank: int,
    world_size: int,
    seed: int,
    epoch: int,
    steps: range,
    buffer: int = 8192,
    num_data_shards: int | None = None,
    split: str = "train",
) -> Iterator[Request]:
    """Yield the requests for this rank's part of every global batch of an epoch.

    All ranks together see every sample at most once, in global batches that do not depend on the world size. They are a
    function of (seed, epoch) alone; if samples are read in groups (see :class:`inq_ray.data.order.groups.GroupOrder`),
    of `num_data_shards` and `buffer` too.

    Args:
        images: The set that `indices` refers to.
        indices: int64 [n], ascending, the samples to train on.
        batch_size: Samples per global batch, over all ranks.
        rank: This process's rank, 0 to world_size - 1.
        world_size: Number of processes.
        seed: The run's seed.
        epoch: Epoch, counted over the whole run.
        steps: Global batches within the epoch, of `steps_per_epoch(n, batch_size)`; skipping the others is free.
        buffer: Number of samples that a data shard shuffles at a time, if samples are read in groups.
        num_data_shards: Parts into which the order of groups is divided, fixed for a whole run; None = `world_size`.
        split: Name of the set in the loader.

    Raises:
        ValueError: There are fewer samples than in a global batch, or a global batch is smaller than the world size.
    """
    num_steps = steps_per_epoch(len(indices), batch_size)
    if batch_size < world_size:
        raise ValueError(f"{batch_size=} (global) is too small for {world_size} ranks; use at least {world_size}")
    assert 0 <= steps.start <= num_steps, (steps, num_steps)
    assert steps.stop <= num_steps, (steps, num_steps)
    batches = epoch_batches(
        images.groups,
        indices,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        seed=seed,
        epoch=epoch,
        buffer=buffer,
        num_data_shards=num_data_shards,
    )
    return (Request(split, step, batches(step), (seed, epoch)) for step in steps)


def eval_requests(
    indices: Tensor,
    *,
    rank: int,
    world_size: int,
    batch_size: int = VALIDATION_BATCH,
    limit: int | None = None,
    split: str = "validation",
) -> Iterator[Request]:
    """Yield this rank's requests of fixed consecutive batches: batch i goes to rank i modulo world_size.

    Batches do not depend on the world size, so sums over batches do not either. Every sample is in exactly one batch of
    one rank; a rank may have none.

    Args:
        indices: int64 [n], the samples to evaluate, in order.
        rank: This process's rank, 0 to world_size - 1.
        world_size: Number of processes.
        batch_size: Samples per batch (the last one has the rest), at any world size.
        limit: Maximum number of batches over all ranks; None = all.
        split: Name of the set in the loader.

    Raises:
        ValueError: The batch size is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"{batch_size=} must be at least 1")
    assert 0 <= rank < world_size, (rank, world_size)
    batches = torch.split(indices, batch_size) if len(indices) else ()
    num_batches = len(batches) if limit is None else min(limit, len(batches))
    return (Request(split, step, batches[step], None) for step in range(rank, num_batches, world_size))


class _Requests:
    """Sampler of a loader that outlives its epochs."""

    def __init__(self) -> None:
        self.current: Iterable[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.current)


class _Read(NamedTuple):
    """Batch that a loader worker has read, and the rank's process decodes; fields as in `Request`."""

    split: str
    step: int
    images: Any


class _Failure(NamedTuple):
    """Error that a loader worker sends instead of a batch: an exception would arrive wrapped in its traceback."""

    reason: str


@dataclass(frozen=True)
class _Fetched(Dataset["Batch | _Read | _Failure"]):
    """Dataset whose items are the batches of requests."""

    sets: dict[str, Images]

    def __getitem__(self, request: Request) -> "Batch | _Read | _Failure":
        images = self.sets[request.split]
        try:
            if isinstance(images, DecodedByRank):
                return _Read(request.split, request.step, images.read(request.samples, request.augment))
            return _batch(images.fetch(request.samples, request.augment), request.step)
        except ValueError as error:
            return _Failure(str(error))


def _batch(samples: Samples, step: int) -> Batch:
    return Batch(samples.images, samples.labels, step, samples.bad)


def _begin_worker(_: int) -> None:
    """Limit a worker to one thread, and leave Ctrl-C to the process that started it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _same(batch: Any) -> Any:
    return batch
