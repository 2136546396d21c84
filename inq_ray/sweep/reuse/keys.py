"""Keys of stage ends: everything that decides their bits, and nothing that comes later.

The end of stage k is a function of the network as it begins (its weights), of the data, of the program, of the number
of workers and threads, and of the configuration up to there: portion, epochs and learning rate of each stage until k.
What follows is not in it, so schedules that begin alike share keys as far as they are alike. In particular:

- the learning rate starts again in each stage, by that stage's epochs: its course in later ones is not in the key;
- --epochs-total is dealt out over all stages: the epochs that come of it are in the key, not the total;
- the number of an epoch, which decides order and augmentation, is that of the epochs before;
- training before the first stage (stage 0) knows neither bits nor portions nor --lr: trials at 5 and 3 bits share it.

A new option is in every key unless its declaration says otherwise: it makes keys differ, never results.
"""

import copy
import dataclasses
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from inq_ray.core.digest import digest_tensors, summary
from inq_ray.models.own_network import find
from inq_ray.models.registry import is_own
from inq_ray.sweep.reuse.code_fingerprint import code_fingerprint
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import Affects, Phase, declared
from inq_ray.training.task.build import image_preset
from inq_ray.training.task.distill import load_teacher


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where all trials of a sweep begin.

    Attributes:
        weights: digest of the network's tensors, trained or fresh.
        teacher: digest of the tensors that --teacher names; empty where it names none.
        code: digest of the file of a network of the user's own; empty where it is one of ours or a library's.
        fingerprint: of the data.
        numerics: of the program.
    """

    weights: str
    teacher: str
    code: str
    fingerprint: str
    numerics: str

    @classmethod
    def of(cls, config: RunConfig, model: nn.Module, fingerprint: str) -> "Origin":
        """The origin of a configuration.

        Args:
            config: of any trial.
            model: as :func:`inq_ray.training.task.build.check` returned it.
            fingerprint: of the data.
        """
        return cls(
            weights=summary(digest_tensors(model.state_dict())),
            teacher=_teacher(config, model),
            code=_code(config.network.arch),
            fingerprint=fingerprint,
            numerics=code_fingerprint(),
        )


def stage_keys(config: RunConfig, origin: Origin) -> dict[int, str]:
    """Keys of the ends of a run's stages by stage, in order: 0 where it trains before the first; none of the last one.

    No other trial can go on from the last end, where every weight is frozen.

    Args:
        config: of the run.
        origin: of the sweep.
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
        "preset": dataclasses.asdict(image_preset(config.data, config.network)),
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
    """Epochs after which a stage ends: its own, of stage 0 those before the first."""
    return config.float_epochs if stage == 0 else config.stage_epochs[stage - 1]


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _teacher(config: RunConfig, model: nn.Module) -> str:
    if config.training.teacher is None:
        return ""
    teacher = copy.deepcopy(model)
    load_teacher(teacher, config.network.arch, config.training.teacher)
    return summary(digest_tensors(teacher.state_dict()))


def _code(arch: str) -> str:
    if not is_own(arch):
        return ""
    find(arch)
    path = getattr(sys.modules[arch.partition(":")[0]], "__file__", None)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
