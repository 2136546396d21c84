"""Which of a file's tensors are the network's: under which keys, and without which prefix of their names."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from inq_ray.core.unwrap import plain_name
from inq_ray.files.shown import one_line, quoted
from inq_ray.models.weight_files import Tensors, WeightsError

_DDP = "module"
# What comes first where several fit. An average of weights does, as where torchvision's reference and timm evaluate a
# checkpoint: its accuracy is the one that is published. Then what checkpoints call the network that was trained.
_AVERAGES = frozenset({"ema", "swa", "average", "averaged", "shadow"})
_NETWORKS = ("state_dict", "model", "model_state_dict", "", "encoder_q")


class Candidate(NamedTuple):
    """Tensors of a file that may be the network's.

    Attributes:
        tensors: By the names that the network would have.
        part: Under which keys of the file they were.
        prefix: What their names lost, such as "model.".
        left_out: Names beside them that do not have the prefix.
    """

    tensors: dict[str, Tensor]
    part: str
    prefix: str
    left_out: tuple[str, ...]

    @property
    def place(self) -> str:
        """Where in the file they are, such as "state_dict.model"; "" = they are the file."""
        return f"{self.part}.{self.prefix}".strip(".")


def choose(
    path: Path,
    parts: Sequence[Tensors],
    own: Mapping[str, Tensor],
    may_lack: Collection[str],
    clean: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> tuple[Candidate, str]:
    """Return the tensors that fit the network, or where none do, those that are nearest; and a note of the choice.

    Args:
        path: The file, for messages.
        parts: What it holds.
        own: The network's tensors by plain name.
        may_lack: Names of the network's that the file may lack, or have in other shapes.
        clean: Leaves out what files of this network may have beside.

    Raises:
        ValueError: Several fit, and none is known to come first.
    """
    needed = [name for name in own if name not in may_lack]
    candidates = [
        candidate._replace(tensors=clean(candidate.tensors))
        for part in parts
        for candidate in _candidates(part, _plain(path, part.tensors, own), needed)
    ]
    fits = [_fit(each.tensors, own, needed) for each in candidates]
    best = sorted((each for each, fit in zip(candidates, fits, strict=True) if fit == max(fits)), key=_rank)
    found = best[0]
    if max(fits).has_names and len(best) > 1 and _rank(best[0]) == _rank(best[1]):
        places = " and ".join(quoted(each.place) for each in best[:2])
        raise WeightsError(
            f"weights: {path} holds several networks that fit: {places}: save one of them alone by "
            "torch.save(tensors_of_one, 'w.pth')"
        )
    return found, _note(path, found, best[1:])


class _Fit(NamedTuple):
    """How well tensors fit, in the order in which that matters."""

    has_names: bool
    has_shapes: bool
    num_shared: int


def _fit(given: Mapping[str, Tensor], own: Mapping[str, Tensor], needed: Collection[str]) -> _Fit:
    has_names = given.keys() <= own.keys() and all(name in given for name in needed)
    has_shapes = has_names and all(given[name].shape == own[name].shape for name in needed)
    return _Fit(has_names, has_shapes, 0 if has_names else len(given.keys() & own.keys()))


def _candidates(part: Tensors, plain: dict[str, Tensor], needed: Sequence[str]) -> Iterator[Candidate]:
    """Yield the tensors as they are, and without each prefix that may lead to the network's names."""
    yield Candidate(plain, part.part, "", ())
    for prefix in [name.removesuffix(needed[0]) for name in plain if name.endswith(f".{needed[0]}")]:
        tensors = {name.removeprefix(prefix): plain[name] for name in plain if name.startswith(prefix)}
        yield Candidate(tensors, part.part, prefix, tuple(name for name in plain if not name.startswith(prefix)))


def _rank(candidate: Candidate) -> int:
    """Return how late a candidate comes among those that fit."""
    if _AVERAGES & set(re.split(r"[._]", candidate.place.lower())):
        return -1
    last = candidate.place.rpartition(".")[2]
    return _NETWORKS.index(last) if last in _NETWORKS else len(_NETWORKS)


def _note(path: Path, found: Candidate, others: Sequence[Candidate]) -> str:
    """Return what was chosen, in one line; "" where there was no choice."""
    if not (found.place or others):
        return ""
    where = f"the tensors under {quoted(found.part)}" if found.part else "its tensors"
    prefix = f", their names without {quoted(found.prefix)}" if found.prefix else ""
    left_out = f", without {len(found.left_out)} such as {quoted(found.left_out[0])}" if found.left_out else ""
    others_fit = f"; {' and '.join(quoted(each.place) for each in others[:2])} would fit too" if others else ""
    return one_line(f"weights: of {path} {where} are taken{prefix}{left_out}{others_fit}")


def _plain(path: Path, given: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off what wrappers put before or into names, unless the model's own names have it."""
    plain = {plain_name(name): tensor for name, tensor in given.items()}
    if not any(_DDP in name.split(".") for name in own):  # a part may be wrapped: torch's example does so with vgg
        plain = {".".join(part for part in name.split(".") if part != _DDP): plain[name] for name in plain}
    while _all_wrapped(plain) and not _all_wrapped(own):
        plain = {name.removeprefix(f"{_DDP}."): tensor for name, tensor in plain.items()}
    if len(plain) < len(given):
        raise WeightsError(f"weights: {path} holds two networks, a wrapped and a plain one; save one of them")
    return plain


def _all_wrapped(names: Collection[str]) -> bool:
    return bool(names) and all(name.startswith(f"{_DDP}.") for name in names)
