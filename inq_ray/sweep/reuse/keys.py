"""Keys of stage ends: everything that determines their bits, and nothing that comes later.

The end of stage k is a function of the initial network (its weights), the data, the program, the number of workers and
threads, and the configuration up to there: portion, epochs and learning rate of each stage until k. Later stages are
not in it, so schedules share the keys of their common first stages. In particular:

- the learning rate schedule restarts in each stage, by that stage's epochs: later stages are not in the key;
- --epochs-total is divided over all stages: the resulting epochs are in the key, not the total;
- order and augmentation depend on the epoch's number, which is the number of epochs before;
- training before the first stage (stage 0) does not depend on bits, portions or --lr: trials at 5 and 3 bits share it.

A new option is in every key unless its declaration excludes it, which makes keys differ, but never results.
"""

import dataclasses
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from inq_ray.core.digest import digest_tensors, summary
from inq_ray.data.image_set import SourceInfo
from inq_ray.models.own_network import find
from inq_ray.models.registry import is_own
from inq_ray.sweep.reuse.code_fingerprint import code_fingerprint
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import Affects, Phase, declared
from inq_ray.training.task.build import preprocessing_of
from inq_ray.training.task.distill import load_teacher


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Common starting point of a sweep's trials.

    Attributes:
        weights: Digest of the network's tensors, trained or random.
        teacher: Digest of the tensors of --teacher, followed by that of the file of a user's own --teacher-arch; empty
            without --teacher.
        code: Digest of the file of a user's own network; empty for networks of this package or a library.
        fingerprint: Fingerprint of the data.
        numerics: Fingerprint of the program.
    """

    weights: str
    teacher: str
    code: str
    fingerprint: str
    numerics: str

    @classmethod
    def of(cls, config: RunConfig, model: nn.Module, info: SourceInfo) -> "Origin":
        """Return the origin of a configuration.

        Args:
            config: Configuration of any trial.
            model: Network from :func:`inq_ray.training.task.check.check`.
            info: Facts about the data.
        """
        return cls(
            weights=summary(digest_tensors(model.state_dict())),
            teacher=_teacher(config, model, info),
            code=_code(config.network.arch),
            fingerprint=info.fingerprint,
            numerics=code_fingerprint(),
        )


def stage_keys(config: RunConfig, origin: Origin) -> dict[int, str]:
    """Return the keys of a run's stage ends by stage, in order, from 0 if it trains before the first; without the last.

    No other trial can start from the last end, where every weight is frozen.

    Args:
        config: Configuration of the run.
        origin: Origin of the sweep.
    """
    assert not config.plain
    keys = {}
    options = [
        each
        for each in declared(config).values()
        if each.option.in_stage_key and each.option.affects is not Affects.NOTHING
    ]
    other = {
        "origin": dataclasses.asdict(origin),
        "preset": dataclasses.asdict(preprocessing_of(config.data, config.network)),
    }
    if config.float_epochs:
        before = {each.name: each.of(config) for each in options if each.option.phase < Phase.STAGES}
        keys[0] = _digest(before | other)
    values = {each.name: each.of(config) for each in options} | other
    stages: list[tuple[float, int, float]] = []
    for stage, epochs in enumerate(config.stage_epochs[:-1], start=1):
        stages.append((config.quantization.iterative_steps[stage - 1], epochs, config.lr_of(stage)))
        keys[stage] = _digest(values | {"stages": stages})
    return keys


def stage_end(config: RunConfig, stage: int) -> int:
    """Return the number of epochs in a stage; for stage 0 those before the first."""
    return config.float_epochs if stage == 0 else config.stage_epochs[stage - 1]


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _teacher(config: RunConfig, model: nn.Module, info: SourceInfo) -> str:
    if config.training.teacher is None:
        return ""
    teacher = load_teacher(config.training, config.network.arch, model, info)
    return summary(digest_tensors(teacher.state_dict())) + _code(config.training.teacher_arch or "")


def _code(arch: str) -> str:
    if not is_own(arch):
        return ""
    find(arch)
    path = getattr(sys.modules[arch.partition(":")[0]], "__file__", None)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
