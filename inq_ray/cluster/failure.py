"""Cause of a failed Ray Train run: the program, its memory, or a lost worker."""

import re
import signal

import ray
import ray.exceptions
import ray.train
import torch

from inq_ray.distributed.agreement import ReplicaMismatchError
from inq_ray.files.shown import escaped
from inq_ray.training.evaluation.float_accuracy import FloatAccuracyError
from inq_ray.training.loop.non_finite import DivergedError

# Texts of gloo and NCCL about a lost connection.
_LOST_TOUCH = re.compile(r"Connection (?:closed|reset) by peer|Timed out waiting \w+|[Tt]imeout|remote process exited")
# Ray Train's own errors about workers that did not start, or do not respond; they are not public.
_NOT_STARTED = frozenset({"WorkerGroupStartupFailedError", "WorkerGroupStartupTimeoutError"})
_SILENT = frozenset({"WorkerHealthCheckFailedError", "WorkerHealthCheckTimeoutError"})


class RunFailedError(RuntimeError):
    """A run failed after it started; one line with rank and reason."""


class WorkersLostError(RunFailedError):
    """Workers or a node are lost; the run can continue from its last checkpoint."""


class MailboxLostError(RuntimeError):
    """The actor between rank 0 and the driver is lost; rank 0 has left a checkpoint, because no stop could reach it."""


class ReplicasDifferError(RunFailedError):
    """The workers' networks differed in bits; the last checkpoint is from before."""


class RunDivergedError(RunFailedError):
    """The loss was not finite; a retry would end in the same way."""


class RunRefusedError(RunFailedError):
    """A run's first measurement showed that it must not continue: nothing was frozen, and nothing is kept."""


class RunStoppedError(RuntimeError):
    """A run was ended by a signal.

    Attributes:
        signal: The first signal.
    """

    def __init__(self, number: signal.Signals, text: str) -> None:
        super().__init__(number, text)
        self.signal = number
        self.text = text

    def __str__(self) -> str:
        return f"{self.signal.name}: {self.text}"


def failure_of(error: Exception) -> RunFailedError:
    """Return the failure in one line: the error of the rank that failed first, not of those that lost their connection.

    Args:
        error: Exception of Ray Train's ``fit``: its own, or Ray's if the actor that it waits for has died.
    """
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    causes = {rank: _cause(failure) for rank, failure in failures.items()}
    if not causes:
        return _failure_without_rank(error)
    rank = min(causes, key=lambda rank: (_is_echo(causes[rank]), rank))
    if isinstance(causes[rank], FloatAccuracyError):
        return RunRefusedError(str(causes[rank]))
    line = f"rank {rank}: {_in_words(causes[rank])}"
    if _is_out_of_memory(causes[rank]):
        line += "; use a smaller --batch-size, a larger --accumulate, or fewer --loader-workers"
        return RunFailedError(line)
    if isinstance(causes[rank], ReplicaMismatchError):
        return ReplicasDifferError(line)
    if isinstance(causes[rank], DivergedError):
        return RunDivergedError(line)
    return WorkersLostError(line) if _is_lost(failures[rank], causes[rank]) else RunFailedError(line)


def _failure_without_rank(error: Exception) -> RunFailedError:
    """Return the failure if Ray Train names no worker: some did not start or have to leave, or it has died itself."""
    cause: Exception = getattr(error, "controller_failure", error)
    line = _first_line(cause)
    if isinstance(cause, ray.exceptions.RayTaskError):  # the watching process has failed, and is there
        return RunFailedError(line)
    if isinstance(error, ray.exceptions.RayError):
        return WorkersLostError(f"Ray Train's controller, which watches the workers, is lost: {line}")
    is_lost = type(cause).__name__ in _NOT_STARTED or isinstance(
        cause, ray.train.PreemptionError | ray.exceptions.RayError
    )
    return WorkersLostError(line) if is_lost else RunFailedError(line)


def _in_words(cause: BaseException) -> str:
    reason = _LOST_TOUCH.search(str(cause)) if _is_echo(cause) else None
    if reason is not None:
        return f"lost the connection to another worker ({reason[0]})"
    return f"{type(cause).__name__}: {_first_line(cause)}"


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's text that is not blank, printable: some texts begin with a blank one."""
    return escaped(next((line.strip() for line in str(error).splitlines() if line.strip()), "no message"))


def _is_lost(failure: Exception, cause: BaseException) -> bool:
    """Return whether a process or its machine was lost, rather than the program failing: a retry may succeed."""
    is_silent = type(failure).__name__ in _SILENT
    return is_silent or isinstance(cause, ray.exceptions.RayError | MailboxLostError) or _is_echo(cause)


def _is_out_of_memory(cause: BaseException) -> bool:
    return isinstance(cause, MemoryError | torch.OutOfMemoryError | ray.exceptions.OutOfMemoryError) or (
        isinstance(cause, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(cause)
    )


def _cause(failure: Exception) -> BaseException:
    """Return the error that Ray Train wrapped: the worker's own exception, or the death of its process."""
    for attribute in ("_base_exc", "health_check_failure", "__cause__"):
        inner = getattr(failure, attribute, None)
        if isinstance(inner, BaseException):
            return inner
    return failure


def _is_echo(cause: BaseException) -> bool:
    """Return whether a collective operation failed, as it does on every rank when one of them is lost."""
    return any(word in str(cause) for word in ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer"))
