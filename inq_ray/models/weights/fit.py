"""Choice of the tensors in a file that belong to a network: by key in the file, and by prefix of their names."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from inq_ray.core.unwrap import plain_name
from inq_ray.files.shown import one_line, quoted
from inq_ray.models.weights.files import Tensors, WeightsError

_DDP = "module"
# Preference if several fit. Averaged weights come first, because torchvision's reference and timm evaluate those: the
# published accuracy is theirs. Then the usual keys for the trained network.
_AVERAGES = frozenset({"ema", "swa", "average", "averaged", "shadow"})
_NETWORKS = ("state_dict", "model", "model_state_dict", "", "encoder_q")


class Candidate(NamedTuple):
    """Tensors of a file that may be the network's.

    Attributes:
        tensors: Tensors by the network's names.
        part: Key in the file.
        prefix: Prefix removed from their names, such as "model.".
        left_out: Other names of the same dictionary, without the prefix.
    """

    tensors: dict[str, Tensor]
    part: str
    prefix: str
    left_out: tuple[str, ...]

    @property
    def place(self) -> str:
        """Where they are in the file, such as "state_dict.model"; "" if they are the whole file."""
        return f"{self.part}.{self.prefix}".strip(".")


def choose(
    path: Path,
    parts: Sequence[Tensors],
    own: Mapping[str, Tensor],
    may_lack: Collection[str],
    clean: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> tuple[Candidate, str]:
    """Return the tensors that fit the network, or else the nearest ones, and a note on the choice.

    Args:
        path: The file, for messages.
        parts: Contents of the file.
        own: The network's tensors by plain name.
        may_lack: Names that the file may lack, or have in other shapes.
        clean: Removes tensors that files of this network may have in addition.

    Raises:
        ValueError: Several fit, and none is preferred.
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
            f"weights: {path} holds several networks that fit: {places}: save one of them with "
            "torch.save(tensors_of_one, 'w.pth')"
        )
    return found, _note(path, found, best[1:])


class _Fit(NamedTuple):
    """How well tensors fit; earlier fields matter more."""

    has_names: bool
    has_shapes: bool
    num_shared: int


def _fit(given: Mapping[str, Tensor], own: Mapping[str, Tensor], needed: Collection[str]) -> _Fit:
    has_names = given.keys() <= own.keys() and all(name in given for name in needed)
    has_shapes = has_names and all(given[name].shape == own[name].shape for name in needed)
    return _Fit(has_names, has_shapes, 0 if has_names else len(given.keys() & own.keys()))


def _candidates(part: Tensors, plain: dict[str, Tensor], needed: Sequence[str]) -> Iterator[Candidate]:
    """Yield the tensors as they are, and without each prefix that may give the network's names."""
    yield Candidate(plain, part.part, "", ())
    if not needed:  # the network is only a head
        return
    for prefix in [name.removesuffix(needed[0]) for name in plain if name.endswith(f".{needed[0]}")]:
        tensors = {name.removeprefix(prefix): plain[name] for name in plain if name.startswith(prefix)}
        yield Candidate(tensors, part.part, prefix, tuple(name for name in plain if not name.startswith(prefix)))


def _rank(candidate: Candidate) -> int:
    """Return a candidate's order among those that fit; lower is preferred."""
    if _AVERAGES & set(re.split(r"[._]", candidate.place.lower())):
        return -1
    last = candidate.place.rpartition(".")[2]
    return _NETWORKS.index(last) if last in _NETWORKS else len(_NETWORKS)


def _note(path: Path, found: Candidate, others: Sequence[Candidate]) -> str:
    """Return a line about the choice; "" if there was no choice."""
    if not (found.place or others):
        return ""
    where = f"the tensors under {quoted(found.part)}" if found.part else "its tensors"
    prefix = f", their names without {quoted(found.prefix)}" if found.prefix else ""
    left_out = f", without {len(found.left_out)} such as {quoted(found.left_out[0])}" if found.left_out else ""
    others_fit = f"; {' and '.join(quoted(each.place) for each in others[:2])} would fit too" if others else ""
    return one_line(f"weights: loading {where} from {path}{prefix}{left_out}{others_fit}")


def _plain(path: Path, given: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove what wrappers add to names, unless the model's own names have it."""
    plain = {plain_name(name): tensor for name, tensor in given.items()}
    if not any(_DDP in name.split(".") for name in own):  # a part may be wrapped, as vgg in torch's example
        plain = {".".join(part for part in name.split(".") if part != _DDP): plain[name] for name in plain}
    while _all_wrapped(plain) and not _all_wrapped(own):
        plain = {name.removeprefix(f"{_DDP}."): tensor for name, tensor in plain.items()}
    if len(plain) < len(given):
        raise WeightsError(f"weights: {path} holds two networks, one wrapped and one plain; save only one")
    return plain


def _all_wrapped(names: Collection[str]) -> bool:
    return bool(names) and all(name.startswith(f"{_DDP}.") for name in names)
