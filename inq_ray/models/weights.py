"""Weights from a file: safetensors, or a state dict by torch's weights-only loader; nothing is ever unpickled."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from inq_ray.models.selection import COMPILED, unwrap

SAFETENSORS = (".safetensors",)
# ".tar" is what torch's ImageNet example writes (checkpoint.pth.tar), ".th" what akamaster's CIFAR ResNets come in.
STATE_DICTS = (".pth", ".pt", ".bin", ".th", ".tar")
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", f"{COMPILED}.")


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a file's tensors into the model: every one of its parameters and buffers, and nothing else, in place.

    A `{"state_dict": ...}` (or "model") around the tensors and a "module." or "_orig_mod." before their names are taken
    off. BatchNorm's `num_batches_tracked` may be missing, as in files older than torch 0.4.1.

    Args:
        model: The network, wrapped or not.
        path: A .safetensors file, or a state dict in .pth, .pt, .bin, .th or .tar.

    Raises:
        ValueError: The file is missing, not readable, without tensors, or does not fit the model; nothing is loaded.
    """
    path = Path(path).expanduser()
    model = unwrap(model)
    own = model.state_dict()
    given = _without_prefix(_read(path), own)
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            given.setdefault(name, tensor)
    _check_fit(path, type(model).__name__, own, given)
    model.load_state_dict(given)


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name."""
    if not path.is_file():
        raise ValueError(f"weights: {'not a file' if path.exists() else 'no such file'}: {path}")
    if path.suffix in SAFETENSORS:
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"weights: cannot read {path} as safetensors: {_line(error)}") from error
    if path.suffix in STATE_DICTS:
        return _tensors(path, _read_state_dict(path))
    allowed = ", ".join(SAFETENSORS + STATE_DICTS)
    raise ValueError(f"weights: {path} ends in {path.suffix!r}; allowed are {allowed}")


def _read_state_dict(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail as anything; it is always the file's fault
        raise ValueError(
            f"weights: cannot read {path} as a state dict: damaged, or it holds more than tensors and would run code "
            f"when loaded (then save model.state_dict() alone, best as .safetensors): {_line(error)}"
        ) from error


def _tensors(path: Path, loaded: object) -> dict[str, Tensor]:
    """Return the state dict within what was loaded."""
    for key in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(inner := loaded.get(key), dict):
            loaded = inner
            break
    if not isinstance(loaded, dict):
        raise ValueError(f"weights: {path} holds a {type(loaded).__name__}, not a state dict of tensors by name")
    tensors = {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        found = ", ".join(map(str, list(loaded)[:5])) or "nothing"
        raise ValueError(f"weights: {path} holds no tensors by name, only: {found}; save model.state_dict()")
    return tensors


def _without_prefix(given: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what DDP and torch.compile put before every name, unless the model's own names have it."""
    while True:
        for prefix in _PREFIXES:
            if all(name.startswith(prefix) for name in given) and not all(name.startswith(prefix) for name in own):
                given = {name.removeprefix(prefix): tensor for name, tensor in given.items()}
                break
        else:
            return given


def _check_fit(path: Path, model: str, own: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Refuse names, shapes and kinds of numbers that are not the model's, in one line."""
    shared = [name for name in own if name in given]
    shapes = [
        f"{name} {list(given[name].shape)} for {list(own[name].shape)}"
        for name in shared
        if given[name].shape != own[name].shape
    ]
    kinds = [
        f"{name} {given[name].dtype} for {own[name].dtype}"
        for name in shared
        if given[name].is_floating_point() != own[name].is_floating_point()
    ]
    problems = [
        _few("missing", [name for name in own if name not in given]),
        _few("unexpected", [name for name in given if name not in own]),
        _few("of another shape", shapes),
        _few("of another type", kinds),
    ]
    if any(problems):
        raise ValueError(f"weights: {path} does not fit {model}: {'; '.join(filter(None, problems))}")


def _few(kind: str, names: list[str], limit: int = 3) -> str:
    """Return "2 missing (a, b)" with the first few names, or nothing."""
    more = ", ..." if len(names) > limit else ""
    return f"{len(names)} {kind} ({', '.join(names[:limit])}{more})" if names else ""


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
