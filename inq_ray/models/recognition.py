"""Recognition of the network that a file's tensors belong to, by names and shapes; for messages."""

import functools
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

import torch

from inq_ray.models import torchvision_networks
from inq_ray.models.registry import OURS
from inq_ray.models.shapes import shapes

_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_MOST_CHANNELS = 4096

Shapes = Mapping[str, torch.Size]


def looks_like(given: Shapes) -> str | None:
    """Return the network of torchvision or of this package with these tensors, for any number of classes, or None.

    At most a few dozen networks are built, without data; this takes seconds.
    """
    given = _essential(given)
    in_channels = next((shape[1] for shape in given.values() if len(shape) == 4 and 0 < shape[1] <= _MOST_CHANNELS), 3)
    for arch in _candidates(given):
        if _is_same(given, _essential(shapes(arch, num_classes=1000, in_channels=in_channels))):
            return arch
    return None


def _candidates(given: Shapes) -> Iterator[str]:
    """Yield this package's networks, then torchvision's family that has the most names in common."""
    yield from OURS
    families: dict[str, list[str]] = {}
    for arch in torchvision_networks.names():
        families.setdefault(torchvision_networks.family(arch), []).append(arch)
    overlaps = {family: _overlap(given.keys(), _names_of(members[0])) for family, members in families.items()}
    nearest = max(families, key=lambda family: overlaps[family])
    if overlaps[nearest]:
        yield from families[nearest]


@functools.cache
def _names_of(arch: str) -> frozenset[str]:
    return frozenset(shapes(arch, num_classes=1000))


def _overlap(given: AbstractSet[str], known: AbstractSet[str]) -> float:
    """Return the Jaccard index of two sets of names, in [0, 1]."""
    return len(given & known) / len(given | known)


def _essential(given: Shapes) -> Shapes:
    """Leave out tensors that may be missing."""
    return {
        name: shape
        for name, shape in given.items()
        if not name.endswith("num_batches_tracked") and not name.startswith(_AUXILIARY)
    }


def _is_same(given: Shapes, known: Shapes) -> bool:
    """Return whether names and shapes agree, except for the number of classes: first dimensions that are 1000."""
    return given.keys() == known.keys() and all(
        given[name] == shape or (shape[:1] == (1000,) and given[name][1:] == shape[1:]) for name, shape in known.items()
    )
