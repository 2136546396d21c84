"""NAME.inq.safetensors: a whole result as one small, self-describing file. docs/format.md specifies the format.

Reading it needs torch, numpy and safetensors: no Ray, and nothing of inq_ray.training.
"""

import hashlib
import json
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inq_ray import safetensors_file
from inq_ray.core.channels import AnyCodebook
from inq_ray.core.digest import digest_tensors, summary
from inq_ray.core.state import TensorState
from inq_ray.core.unwrap import plain_name, unwrap
from inq_ray.export.errors import VerificationError
from inq_ray.export.float_state import HasState, states_of
from inq_ray.export.packed.coding import compress_codes
from inq_ray.export.packed.reader import FORMAT_VERSION, METADATA_KEY, PackedFile, read, sha256
from inq_ray.export.result import Result
from inq_ray.files.shown import one_line, quoted
from inq_ray.files.whole import whole


def save(path: str | Path, model: nn.Module, inq_scheduler: HasState | Mapping[str, TensorState], **facts: Any) -> None:
    """Write a network whose weights are all frozen into one small file, whole or not at all.

    Args:
        path: The file; such files are named NAME.inq.safetensors.
        model: The network; its state is written, without the wrappers DDP and torch.compile.
        inq_scheduler: Scheduler with the frozen weights and their codes, or its ``state``.
        facts: Facts for the recipient, as JSON values, such as `network="resnet18"` or `accuracy={"top1": 69.7}`.
            docs/format.md lists the names that `inq-ray` writes.

    Raises:
        ValueError: A weight is still live or differs from its code, facts are not JSON values, or the file cannot be
            written; an existing file is then unchanged.

    Examples:
        >>> import os, tempfile, inq_ray
        >>> model = nn.Linear(8, 4)
        >>> inq_scheduler = inq_ray.INQScheduler(inq_ray.SGD(inq_ray.param_groups(model, weight_bits=4)), [1.0])
        >>> inq_scheduler.step()
        >>> path = os.path.join(tempfile.mkdtemp(), "small.inq.safetensors")
        >>> save(path, model, inq_scheduler, network="a linear layer")
        >>> torch.equal(load(path)["weight"], model.weight)
        True
    """
    path = Path(path)
    state = {plain_name(name): tensor for name, tensor in unwrap(model).state_dict().items()}
    result = Result(state, states_of(inq_scheduler), facts)
    try:
        with whole(path) as beside:
            write(beside, result)
    except OSError as error:
        raise ValueError(one_line(f"cannot write {path}: {error.strerror or error}")) from error


def load(path: str | Path, model: nn.Module | None = None) -> dict[str, Tensor]:
    """Read a packed file; with `model`, also load it into that network.

    Args:
        path: The file.
        model: Any network with the same parameters and buffers, such as torchvision's; it may have another dtype that
            represents the quantized weights exactly.

    Returns:
        The network's state by name, on the CPU; quantized weights are exactly 0 or ±2^k.

    Raises:
        ValueError: The file is missing, damaged or not a packed file, or it does not fit the network, which is then
            unchanged.

    Examples:
        >>> load("missing.inq.safetensors")
        Traceback (most recent call last):
        ValueError: ...
    """
    packed = read(path)
    if model is not None:
        fill(model, packed, path)
    return packed.state


def write(path: Path, result: Result) -> None:
    """Write the file; see :class:`inq_ray.export.formats.Format`.

    Raises:
        ValueError: The facts have a value that JSON does not have.
    """
    states, model_state = result.states, result.model_state
    described: list[dict[str, Any]] = []
    codes: list[bytes] = []
    others: dict[torch.dtype, list[Tensor]] = {}
    first_of: dict[tuple[Any, ...], str] = {}
    for name in sorted(model_state, key=lambda name: name not in states):
        tensor = model_state[name]
        line: dict[str, Any] = {"name": name, "dtype": _name(tensor.dtype), "shape": list(tensor.shape)}
        # Tied tensors are written once, under the name that has codes.
        memory = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if name in states:
            encoding, stored = compress_codes(states[name].codes, states[name].codebook.num_bits)
            codes.append(stored)
            line |= _describe(states[name].codebook)
            line |= {"encoding": encoding, "bytes": len(stored), "sha256": hashlib.sha256(stored).hexdigest()}
        elif memory in first_of and tensor.numel():
            line["same_as"] = first_of[memory]
        else:
            others.setdefault(tensor.dtype, []).append(tensor.detach().cpu().reshape(-1))
        first_of.setdefault(memory, name)
        described.append(line)
    blobs = {_name(dtype): torch.cat(parts) for dtype, parts in others.items()}
    index = {
        "digest": summary(digest_tensors(model_state)),
        "facts": result.facts,
        "others": {name: {"sha256": sha256(blob)} for name, blob in blobs.items()},
        "tensors": described,
    }
    _save(path, index, {**blobs, "codes": _as_tensor(b"".join(codes))})


def verify(path: Path, model: Mapping[str, Tensor], names: Collection[str]) -> None:
    """Check that a packed file has exactly this network.

    Args:
        path: The file.
        model: Contents of model.safetensors.
        names: Quantized parameters.

    Raises:
        VerificationError: Names the first tensor that is wrong, and what is wrong with it.
    """
    try:
        packed = read(path)
    except ValueError as error:
        raise VerificationError(None, str(error)) from error
    for name in sorted(set(names) ^ packed.quantized.keys()):
        raise VerificationError(name, "is not packed" if name in names else "is packed, but must not be quantized")
    for name in sorted(model.keys() ^ packed.state.keys()):
        raise VerificationError(name, f"is not in both {path.name} and the network")
    for name, tensor in packed.state.items():
        if not _same_bits(tensor, model[name]):
            raise VerificationError(name, f"differs between {path.name} and the network")


def _save(path: Path, index: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    try:
        text = json.dumps(index, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            one_line(f"facts are not JSON values ({error}): use numbers, texts, lists and dicts")
        ) from None
    stored = zlib.compress(text.encode(), 9)
    described = {"format_version": FORMAT_VERSION, "index_sha256": hashlib.sha256(stored).hexdigest()}
    metadata = {METADATA_KEY: json.dumps(described, sort_keys=True)}
    safetensors_file.save(path, {**tensors, "index": _as_tensor(stored)}, metadata)


def _describe(codebook: AnyCodebook) -> dict[str, Any]:
    return {"bits": codebook.num_bits, "n_1": codebook.n_1, "levels": codebook.levels}


def _as_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(*(each.contiguous().reshape(-1).view(torch.uint8) for each in (one, other)))


def _misfit(own: Mapping[str, Any], given: Mapping[str, Tensor]) -> str:
    """Return which tensors of a file do not fit those of a network, with two examples of each kind; "" if all do."""
    shapes = {name: getattr(own[name], "shape", given[name].shape) for name in own.keys() & given.keys()}
    problems = {
        "missing": [quoted(name) for name in own if name not in given],
        "unexpected": [quoted(name) for name in given if name not in own],
        "other shapes": [
            f"{quoted(name)} {list(tensor.shape)} for {list(shapes[name])}"
            for name, tensor in given.items()
            if name in shapes and tensor.shape != shapes[name]
        ],
    }
    return "; ".join(
        f"{kind}: {', '.join(names[:2])}{f' and {len(names) - 2:,} more' * (len(names) > 2)}"
        for kind, names in problems.items()
        if names
    )


def fill(model: nn.Module, packed: PackedFile, path: str | Path) -> None:
    """Load a packed file's tensors into a network.

    Args:
        model: The network, wrapped or not.
        packed: What was read.
        path: Name of the file, for messages.

    Raises:
        ValueError: The file does not fit the network, or the network's dtype cannot represent the levels; the network
            is not changed.
    """
    own = unwrap(model).state_dict(keep_vars=True)
    own_names = {plain_name(name): name for name in own}  # torch.compile of a submodule changes them
    for name in packed.quantized.keys() & own_names.keys():
        weight, dtype = packed.state[name], own[own_names[name]].dtype
        if not torch.equal(weight.to(dtype).double(), weight.double()):
            raise ValueError(
                one_line(
                    f"{path}: {quoted(name)} of the network has {dtype}, which cannot represent its levels exactly"
                )
            )
    if misfit := _misfit({plain: own[name] for plain, name in own_names.items()}, packed.state):
        raise ValueError(one_line(f"{path} does not fit {type(model).__name__}: {misfit}"))
    try:
        unwrap(model).load_state_dict({own_names.get(name, name): tensor for name, tensor in packed.state.items()})
    except RuntimeError as error:
        raise ValueError(one_line(f"{path} does not fit {type(model).__name__}: {error}")) from None
