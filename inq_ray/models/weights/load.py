"""Loading of weights from a file into a network: every tensor fits, or nothing is loaded."""

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from inq_ray.core.unwrap import plain_name, unwrap
from inq_ray.files.shown import one_line
from inq_ray.models.recognition import looks_like
from inq_ray.models.weights.files import WeightsError, existing_file, read_parts
from inq_ray.models.weights.fit import choose

# Auxiliary classifiers of torchvision's googlenet and inception_v3; in its files, but left out by `create`.
_AUXILIARY = ("aux1", "aux2", "AuxLogits")


class Loaded(NamedTuple):
    """Result of loading.

    Attributes:
        place: Key of the tensors in the file, such as "model_ema" or "state_dict.model"; "" = the whole file.
        fresh: Names of the head's tensors that keep their random values.
        note: Line for the user: which of the file's tensors were loaded, and which others fit; "" without a choice.
    """

    place: str
    fresh: tuple[str, ...]
    note: str


def load_weights(model: nn.Module, path: str | Path, replace_head: Collection[str] = ()) -> Loaded:
    """Load a file's tensors into the model, in place: all of its parameters and buffers, and nothing else.

    The tensors may be nested in the file (`{"state_dict": ...}`, "net") and have a prefix ("model.", "backbone."),
    which is removed if the rest fits. If several fit, averaged weights are preferred ("model_ema" of torchvision's
    reference,
    "state_dict_ema" of timm), then the keys "state_dict" and "model".

    The parts "module." and "_orig_mod.", which DDP, DataParallel, AveragedModel and torch.compile add, are removed from
    names. BatchNorm's `num_batches_tracked` may be missing, as in files from before torch 0.4.1; auxiliary classifiers
    may be present.

    Args:
        model: The network, wrapped or not.
        path: A .safetensors file, or a state dict in .pth, .pt, .bin, .th, .tar or .ckpt.
        replace_head: Names (`head_parameters`) that keep the model's random values unless the file has all of them in
            the model's shapes: for a network with other classes. A head that fits is loaded.

    Raises:
        ValueError: The file is missing, not readable, without tensors, does not fit the model, or holds several
            networks that fit; nothing is loaded.
    """
    path = existing_file(path)
    model = unwrap(model)
    stored = model.state_dict()
    own = {plain_name(name): tensor for name, tensor in stored.items()}
    assert set(replace_head) <= own.keys(), f"no tensors of the model: {set(replace_head) - own.keys()}"
    counters = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    chosen, note = choose(
        path, read_parts(path), own, {*counters, *replace_head}, partial(_without_auxiliary, model=model)
    )
    given = counters | chosen.tensors
    fresh: tuple[str, ...] = ()
    if any(name not in given or given[name].shape != own[name].shape for name in replace_head):
        fresh = tuple(name for name in own if name in replace_head)
        given |= {name: own[name] for name in fresh}
    _check_fit(path, model, own, given)
    model.load_state_dict({name: given[plain_name(name)] for name in stored})
    return Loaded(chosen.place, fresh, note)


def _without_auxiliary(given: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Leave out auxiliary classifiers that the model was built without."""
    without = tuple(f"{part}." for part in _AUXILIARY if getattr(model, part, model) is None)
    return {name: tensor for name, tensor in given.items() if not name.startswith(without)}


def _check_fit(path: Path, model: nn.Module, own: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Refuse names, shapes and types that differ from the model's, and values that are not finite; one line."""
    missing = [name for name in own if name not in given]
    unexpected = [name for name in given if name not in own]
    shared = [name for name in own if name in given]
    misshaped = [name for name in shared if given[name].shape != own[name].shape]
    comparable = [name for name in shared if given[name].is_floating_point() == own[name].is_floating_point()]
    kinds = [f"{name} {given[name].dtype} for {own[name].dtype}" for name in shared if name not in comparable]
    not_finite = [name for name in comparable if not bool(given[name].to(own[name].dtype).isfinite().all())]
    shapes = [f"{name} {list(given[name].shape)} for {list(own[name].shape)}" for name in misshaped]
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": shapes,
        "of another type": kinds,
        "with values that are NaN, infinite, or too large for the network's type": not_finite,
    }
    problems = {kind: names for kind, names in problems.items() if names}
    if problems:
        reason = advice = ""
        if misshaped and not (missing or unexpected or kinds or not_finite):
            reason = _classes([(given[name], own[name]) for name in misshaped])
            advice = ": --replace-head loads all but the head" if reason else ""
        elif missing or unexpected:
            reason = _similar_arch(given)
        told = [_few(kind, names, 3 if len(problems) < 3 else 1) for kind, names in problems.items()]
        what = f"weights: {path} does not fit {type(model).__name__}: {'; '.join(told)}"
        raise WeightsError(f"{what}{reason}", advice=advice)


def _classes(pairs: list[tuple[Tensor, Tensor]]) -> str:
    """Return the numbers of classes if all shapes differ in the same first dimension, and in no other."""
    if any(given.dim() != own.dim() or given.shape[1:] != own.shape[1:] for given, own in pairs):
        return ""
    numbers = {(len(given), len(own)) for given, own in pairs}
    if len(numbers) > 1:
        return ""
    (in_file, in_network) = numbers.pop()
    return f"; the file has {in_file} classes and the network {in_network}"


def _similar_arch(given: dict[str, Tensor]) -> str:
    arch = looks_like({name: tensor.shape for name, tensor in given.items()})
    return f"; the file looks like --arch {arch}" if arch else ""


def _few(kind: str, names: list[str], limit: int) -> str:
    """Return "2 missing (a, b)" with the first few names."""
    more = ", ..." if len(names) > limit else ""
    return f"{len(names)} {kind} ({', '.join(one_line(name, 60) for name in names[:limit])}{more})"
