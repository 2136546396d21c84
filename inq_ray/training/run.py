"""One run from start to end: float training if requested, the stages, the result and its verification."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from inq_ray.core.digest import digest_tensors, summary
from inq_ray.distributed.wire import rank, world_size
from inq_ray.files.shown import counted
from inq_ray.training.checkpoint.snapshot import Parts, replicated
from inq_ray.training.config import RunConfig
from inq_ray.training.finish import finish
from inq_ray.training.loop.build import precision_of
from inq_ray.training.loop.non_finite import MOST_REWINDS, DivergedError, Faults
from inq_ray.training.report.events import Reporter, Started
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.run_state import RunState
from inq_ray.training.stages import measure_given, run_stages, train_float
from inq_ray.training.task.determinism import set_deterministic
from inq_ray.training.task.groups import groups_of


def _never() -> bool:
    return False


def run(
    config: RunConfig,
    *,
    device: torch.device,
    reporter: Reporter,
    folder: RunFolder,
    fingerprint: str | None = None,
    is_asked_to_stop: Callable[[], bool] = _never,
) -> dict[str, Any]:
    """Train and quantize; every rank calls it, and rank 0 reports and writes.

    Args:
        config: Configuration that passed :func:`inq_ray.training.task.check.check`.
        device: Device of this rank.
        reporter: Receives rank 0's events.
        folder: Folder of the run, which exists.
        fingerprint: Fingerprint that the data must have; None = any.
        is_asked_to_stop: Returns whether this rank was asked to stop, without waiting; called about once a second.

    Returns:
        The summary, the same on every rank except for times.

    Raises:
        ValueError: Data or weights do not exist on this machine.
        FloatAccuracyError: The accuracy of given weights is implausible, and not accepted; nothing is frozen.
        ReplicaMismatchError: The ranks no longer hold the same bits.
        DivergedError: A loss or its gradient is not finite, and --on-nan stops there.
        StopError: A rank was asked to stop; a checkpoint is written. Raised on every rank.
        VerificationError: The written files are not correct.
    """
    set_deterministic()
    rewound: Faults | None = None
    while True:
        state = RunState(
            config,
            device=device,
            reporter=reporter,
            folder=folder,
            fingerprint=fingerprint,
            rewound=rewound,
            is_asked_to_stop=is_asked_to_stop,
        )
        try:
            return _attempt(state, folder)
        except DivergedError as error:
            if config.training.on_nan != "rewind":
                raise
            rewound = _rewind(state, error)
        del state  # the next attempt needs its memory


def _attempt(run: RunState, folder: RunFolder) -> dict[str, Any]:
    """Run from the last checkpoint, or the beginning, to the end; return the summary."""
    config, model = run.config, run.task.model
    run.load()
    groups = groups_of(model, config)
    _report_start(run, groups)
    run.go_on()
    if run.start is None and config.network.weights is not None:
        measure_given(run)
    train_float(run)
    inq = None if config.plain else run_stages(run, groups)
    parts = Parts(model=model, inq=inq)
    run.check_replicas(parts, has_buffers=True)
    run.checkpoints.close()
    digest = summary(digest_tensors(replicated(parts, has_buffers=True)))
    return finish(config, run.task, inq, run.journal, folder, digest)


def _report_start(run: RunState, groups: list[dict[str, Any]]) -> None:
    """Report the size of the run; rank 0."""
    if rank() != 0:
        return
    params: list[tuple[nn.Parameter, bool]] = [
        (param, group["weight_bits"] is not None) for group in groups for _, param in group["params"]
    ]
    task = run.task
    run.journal.report(
        Started(
            arch=run.config.network.arch,
            num_parameters=sum(param.numel() for param, _ in params),
            num_quantized=sum(param.numel() for param, is_quantized in params if is_quantized),
            num_train=len(task.train_indices),
            num_validation=len(task.validation_indices),
            world_size=world_size(),
            device=str(task.to_input.device),
            precision=precision_of(run.config.training, task.to_input.device),
        )
    )


def _rewind(run: RunState, error: DivergedError) -> Faults:
    """Discard an attempt on every rank. The next one begins the stage again with half its learning rate.

    It does not use the last checkpoint: the positions of those by --checkpoint-every depend on a clock and the storage.
    From the stage's start, a run ends with the same bits whether or not it is interrupted as well. The same rate would
    end in the same fault.

    Returns:
        Faults for the next attempt.

    Raises:
        DivergedError: The stage has begun again too often.
    """
    run.checkpoints.close()
    before, stage = run.journal.faults, error.stage
    num_rewinds = before.rewinds.count(stage)
    if num_rewinds == MOST_REWINDS:
        advice = f"{error.advice} (stage {stage} began again {counted(num_rewinds, 'time')})"
        raise DivergedError(stage, error.what, advice) from error
    faults = dataclasses.replace(before, in_a_row=0, rewinds=(*before.rewinds, stage))
    if rank() == 0:
        times = f"{num_rewinds + 1} of {MOST_REWINDS}"
        rate = f"{faults.lr_factor(stage):g} of its learning rate"
        run.journal.note("stage_rewound", f"{error.what}: stage {stage} begins again at {rate} ({times})")
    return faults
