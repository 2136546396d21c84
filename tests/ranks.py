"""Runs a function on N ranks: N processes, gloo on the loopback, one thread each, results or exceptions brought back.

    def total(offset):                      # at module level, so that the processes can import it
        return int(sum_counts(torch.tensor([rank() + offset])))

    def test_total():
        assert run_ranks(total, 3, 10) == [33, 33, 33]

`run_ranks` raises what a rank raised, the first one in time: what other ranks raise afterwards is mostly "connection
closed". `rank_outcomes` returns exceptions as values, for tests in which ranks have to fail.

Processes are forked from a server that has imported torch once (4 s, the first time that a session of tests asks), so a
run costs a fraction of a second and shares nothing with the runs before it. Arguments and results travel pickled:
tensors are copied.
"""

import multiprocessing
import os
import pickle
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

# On a machine that others use too: a process of ranks imports torch first.
DEFAULT_TIMEOUT_SECONDS = 300.0
_PRELOAD = ["torch", "torch.distributed", "torch.nn.parallel", "torch._dynamo", "numpy", "pytest", "hypothesis"]
# How long the other ranks may go on once one has failed: they wait for it in a collective, or are about to fail too.
_GRACE_SECONDS = 20.0


class Outcome(NamedTuple):
    """What one rank ended with: `error` is None where it returned `value`."""

    rank: int
    value: Any
    error: BaseException | None
    trace: str


class RankLostError(RuntimeError):
    """A rank ended without an answer: it died, or was ended because the time was over or another rank had failed."""


def run_ranks(
    function: Callable[..., Any], world_size: int, *args: Any, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
) -> list[Any]:
    """Returns function(*args) of each rank, by rank.

    Args:
        function: at module level; calls torch.distributed (or inq_ray.distributed) to learn its rank.
        world_size: number of processes; 1 too gets a process and a process group of its own.
        timeout_seconds: for all of it; what is still running then is killed.

    Raises:
        Exception: what the first rank to fail raised, with its traceback as a note.
        RankLostError: where a rank died, or time was over.
    """
    outcomes = _run(function, world_size, args, timeout_seconds)
    for outcome in outcomes:
        if outcome.error is not None:
            outcome.error.add_note(f"on rank {outcome.rank} of {world_size}:\n{outcome.trace}")
            raise outcome.error
    return [outcome.value for outcome in sorted(outcomes)]


def rank_outcomes(
    function: Callable[..., Any], world_size: int, *args: Any, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
) -> list[Outcome]:
    """Returns what each rank returned or raised, by rank; see `run_ranks`."""
    return sorted(_run(function, world_size, args, timeout_seconds), key=lambda outcome: outcome.rank)


def _run(function: Callable[..., Any], world_size: int, args: Sequence[Any], timeout_seconds: float) -> list[Outcome]:
    """Returns the outcomes in the order in which the ranks ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    task = pickle.dumps((function, args))
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        processes: list[BaseProcess] = []
        receivers: dict[Connection, int] = {}
        try:
            for rank in range(world_size):
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(
                    target=_work, args=(rank, world_size, str(Path(folder, "store")), task, sender), daemon=True
                )
                process.start()
                sender.close()
                processes.append(process)
                receivers[receiver] = rank
            return _collect(receivers, timeout_seconds)
        finally:
            for process in processes:
                process.join(timeout=1.0)
                if process.is_alive():
                    process.kill()
                    process.join()
            for receiver in receivers:
                receiver.close()


def _collect(receivers: dict[Connection, int], timeout_seconds: float) -> list[Outcome]:
    waiting = dict(receivers)
    outcomes: list[Outcome] = []
    deadline = time.monotonic() + timeout_seconds
    while waiting:
        ready = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            ended = f"no answer within {timeout_seconds} s, or none after another rank failed"
            outcomes.extend(
                Outcome(rank, None, RankLostError(f"rank {rank}: {ended}"), "") for rank in waiting.values()
            )
            break
        for receiver in ready:
            assert isinstance(receiver, Connection)
            outcome = _receive(receiver, waiting.pop(receiver))
            outcomes.append(outcome)
            if outcome.error is not None:
                deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
    return outcomes


def _receive(receiver: Connection, rank: int) -> Outcome:
    try:
        return Outcome(rank, *pickle.loads(receiver.recv_bytes()))  # noqa: S301, our own process
    except EOFError:
        return Outcome(rank, None, RankLostError(f"rank {rank}: its process died"), "")


def _work(rank: int, world_size: int, store_path: str, task: bytes, sender: Connection) -> None:
    """One rank's process: sets up the process group, runs the task, sends (value, error, trace)."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    value: Any = None
    error: BaseException | None = None
    trace = ""
    try:
        store = dist.FileStore(store_path, world_size)
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=DEFAULT_TIMEOUT_SECONDS)
        )
        function, args = pickle.loads(task)  # noqa: S301, our own process
        value = function(*args)
    except BaseException as caught:  # noqa: BLE001, all goes back to the test, pytest's own skip and fail too
        error, trace = caught, traceback.format_exc()
    _send(sender, value, error, trace)
    if dist.is_initialized():
        dist.destroy_process_group()


def _send(sender: Connection, value: Any, error: BaseException | None, trace: str) -> None:
    try:
        answer = pickle.dumps((value, error, trace))
        pickle.loads(answer)  # noqa: S301, an exception may pickle and yet not unpickle
    except Exception as problem:  # noqa: BLE001, goes back to the test
        problem_text = f"the answer cannot be pickled: {problem!r}"
        answer = pickle.dumps((None, TypeError(problem_text), trace or problem_text))
    sender.send_bytes(answer)
    sender.close()
