"""Weights from a file into a network: every tensor fits, or nothing is loaded."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from inq_ray.models.recognition import looks_like
from inq_ray.models.selection import plain_name, unwrap
from inq_ray.models.weight_files import WeightsError, existing_file, read_tensors

_DDP = "module"
# What torchvision's googlenet and inception_v3 have beside their logits, and its files hold; `create` leaves it out.
_AUXILIARY = ("aux1", "aux2", "AuxLogits")


class Loaded(NamedTuple):
    """What was loaded.

    Attributes:
        part: the key of the file's checkpoint that held the tensors ("model_ema", "state_dict"), "" = the file itself.
        fresh: names of the head's tensors that keep their fresh values.
    """

    part: str
    fresh: tuple[str, ...]


def load_weights(model: nn.Module, path: str | Path, replace_head: Collection[str] = ()) -> Loaded:
    """Load a file's tensors into the model: every one of its parameters and buffers, and nothing else, in place.

    A `{"state_dict": ...}` (or "model") around the tensors is taken off; where there is also an average of weights
    ("model_ema" of torchvision's reference, "state_dict_ema" of timm) the average is taken. Names lose the "module."
    and "_orig_mod." that DDP, DataParallel, AveragedModel and torch.compile put before or into them. BatchNorm's
    `num_batches_tracked` may be missing, as in files older than torch 0.4.1; auxiliary classifiers may be there.

    Args:
        model: The network, wrapped or not.
        path: A .safetensors file, or a state dict in .pth, .pt, .bin, .th or .tar.
        replace_head: Names (`head_parameters`) that keep the model's fresh values where the file does not have all of
            them in the model's shapes: a network for other classes. A head that fits is loaded.

    Raises:
        ValueError: The file is missing, not readable, without tensors, or does not fit the model; nothing is loaded.
    """
    path = existing_file(path)
    model = unwrap(model)
    stored = model.state_dict()
    own = {plain_name(name): tensor for name, tensor in stored.items()}
    assert set(replace_head) <= own.keys(), f"no tensors of the model: {set(replace_head) - own.keys()}"
    tensors, part = read_tensors(path)
    given = _without_auxiliary(_plain(path, tensors, own), model)
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            given.setdefault(name, tensor)
    fresh: tuple[str, ...] = ()
    if any(name not in given or given[name].shape != own[name].shape for name in replace_head):
        fresh = tuple(name for name in own if name in replace_head)
        given |= {name: own[name] for name in fresh}
    _check_fit(path, model, own, given)
    model.load_state_dict({name: given[plain_name(name)] for name in stored})
    return Loaded(part, fresh)


def _plain(path: Path, given: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what wrappers put before or into names, unless the model's own names have it."""
    plain = {plain_name(name): tensor for name, tensor in given.items()}
    if not any(_DDP in name.split(".") for name in own):  # a part may be wrapped: torch's example does so with vgg
        plain = {".".join(part for part in name.split(".") if part != _DDP): plain[name] for name in plain}
    while _all_wrapped(plain) and not _all_wrapped(own):
        plain = {name.removeprefix(f"{_DDP}."): tensor for name, tensor in plain.items()}
    if len(plain) < len(given):
        raise ValueError(f"weights: {path} holds two networks, a wrapped and a plain one; save one of them")
    return plain


def _all_wrapped(names: Collection[str]) -> bool:
    return bool(names) and all(name.startswith(f"{_DDP}.") for name in names)


def _without_auxiliary(given: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Leave out auxiliary classifiers that the model was built without."""
    without = tuple(f"{part}." for part in _AUXILIARY if getattr(model, part, model) is None)
    return {name: tensor for name, tensor in given.items() if not name.startswith(without)}


def _check_fit(path: Path, model: nn.Module, own: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Refuse names, shapes and kinds of numbers that are not the model's, and what are no numbers, in one line."""
    missing = [name for name in own if name not in given]
    unexpected = [name for name in given if name not in own]
    shared = [name for name in own if name in given]
    misshaped = [name for name in shared if given[name].shape != own[name].shape]
    alike = [name for name in shared if given[name].is_floating_point() == own[name].is_floating_point()]
    kinds = [f"{name} {given[name].dtype} for {own[name].dtype}" for name in shared if name not in alike]
    not_finite = [name for name in alike if not bool(given[name].to(own[name].dtype).isfinite().all())]
    problems = [
        _few("missing", missing),
        _few("unexpected", unexpected),
        _few(
            "of another shape", [f"{name} {list(given[name].shape)} for {list(own[name].shape)}" for name in misshaped]
        ),
        _few("of another type", kinds),
        _few("with values that are NaN, infinite, or too large for the network's type", not_finite),
    ]
    if any(problems):
        reason = advice = ""
        if misshaped and not (missing or unexpected or kinds or not_finite):
            reason = _classes([(given[name], own[name]) for name in misshaped])
            advice = ": --replace-head loads all but the head" if reason else ""
        elif missing or unexpected:
            reason = _similar_arch(given)
        what = f"weights: {path} does not fit {type(model).__name__}: {'; '.join(filter(None, problems))}"
        raise WeightsError(f"{what}{reason}", advice=advice)


def _classes(pairs: list[tuple[Tensor, Tensor]]) -> str:
    """Return the numbers of classes if nothing else differs: all shapes differ in the same way at first."""
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


def _few(kind: str, names: list[str], limit: int = 3) -> str:
    """Return "2 missing (a, b)" with the first few names, or nothing."""
    more = ", ..." if len(names) > limit else ""
    return f"{len(names)} {kind} ({', '.join(names[:limit])}{more})" if names else ""
