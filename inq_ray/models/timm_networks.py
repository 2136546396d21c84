"""timm's networks by name, `timm/NAME` or `timm/NAME.TAG`, and their trained weights; needs the extra `timm`."""

import difflib
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from inq_ray import safetensors_file
from inq_ray.files.extra import install_command
from inq_ray.files.shown import counted
from inq_ray.models.weights.download import cached, checkpoints_folder, once
from inq_ray.models.weights.files import WeightsError, first_line, read_parts

PREFIX = "timm/"


def check(arch: str) -> None:
    """Refuse a name that timm does not have, without building anything.

    Raises:
        ValueError: timm is not installed, or has no such network or tag; the message names the nearest.
    """
    timm = _timm(arch)
    name, dot, tag = arch.removeprefix(PREFIX).partition(".")
    known = timm.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or ["resnet18"]
        raise ValueError(f"{arch=} is not a network of timm; nearest: {', '.join(PREFIX + other for other in near)}")
    if dot:
        _check_tag(name, tag, f"{arch=}")


def create(arch: str, *, num_classes: int, in_channels: int, image_size: int | None) -> nn.Module:
    """Build a network with random weights, see `inq_ray.models.registry.create`."""
    timm = _timm(arch)
    name = arch.removeprefix(PREFIX)
    config = timm.models.get_pretrained_cfg(name)
    options = {}
    if image_size is not None and config and config.fixed_input_size and image_size != config.input_size[1]:
        options["img_size"] = image_size
    try:
        model: nn.Module = timm.create_model(name, num_classes=num_classes, in_chans=in_channels, **options)
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        # timm's families raise any of these for what they do not support; a RuntimeError is the user's only with a
        # size.
        if isinstance(error, RuntimeError) and not options:
            raise
        size = f" and images of {image_size} pixels" if options else ""
        raise ValueError(
            f"{arch=} cannot be built for {counted(num_classes, 'class')}, {counted(in_channels, 'channel')}{size}: "
            f"{first_line(error)}"
        ) from error
    return model


def has_weights(arch: str) -> bool:
    """Return whether timm has trained weights for "timm/NAME", or those of the tag in "timm/NAME.TAG"."""
    config = _config(arch, "DEFAULT", needs_weights=False)
    return bool(config.hf_hub_id or config.url)


def weights_file(arch: str, weights: str) -> Path:
    """Return a .safetensors file of trained weights in the form of this version of timm; made once per node.

    timm loads them: from the Hugging Face hub (safetensors if available, else by torch's weights-only loader), or for
    the few that are not on the hub from their URL; then timm's filter for the network's family is applied.

    Args:
        arch: "timm/NAME" or "timm/NAME.TAG".
        weights: "DEFAULT" (those of TAG, or of the network's first tag), or a tag.

    Raises:
        ValueError: No such tag, no trained weights, or they cannot be downloaded.
    """
    timm = _timm(arch)
    config = _config(arch, weights)
    full_name = f"{config.architecture}.{config.tag}" if config.tag else config.architecture

    def make(path: Path) -> None:
        tensors = _download(timm, config)
        source = {"state_dict": tensors, "custom_load": False}
        try:
            with torch.random.fork_rng(devices=[]):
                model = timm.create_model(full_name, pretrained=True, pretrained_cfg_overlay=source)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"weights: timm cannot load {full_name}: {first_line(error)}") from error
        safetensors_file.save(path, model.state_dict(), {})

    return once(checkpoints_folder() / f"timm-{timm.__version__}-{full_name}.safetensors", make)


def data_config(arch: str, weights: str | None) -> dict[str, Any]:
    """Return timm's preprocessing for weights (`timm.data.resolve_data_config`).

    With "resize_size", int: the shorter side in pixels before the crop.
    """
    timm = _timm(arch)
    config = _config(arch, weights or "DEFAULT", needs_weights=False)
    found: dict[str, Any] = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
    found["resize_size"] = math.floor(found["input_size"][1] / found["crop_pct"])
    return found


def _timm(arch: str) -> ModuleType:
    try:
        import timm
    except ImportError as error:
        command = install_command("timm", "timm")
        raise ValueError(f"{arch=} needs timm, which is not installed: {command}") from error
    module: ModuleType = timm
    return module


def _config(arch: str, weights: str, *, needs_weights: bool = True) -> Any:
    """Return timm's description of trained weights (PretrainedCfg)."""
    timm = _timm(arch)
    name, _, tag = arch.removeprefix(PREFIX).partition(".")
    if weights != "DEFAULT":
        tag = weights.removeprefix(f"{name}.")
        _check_tag(name, tag, f"--weights {weights}")
    config = timm.models.get_pretrained_cfg(f"{name}.{tag}" if tag else name)
    if needs_weights and not (config and (config.hf_hub_id or config.url)):
        raise WeightsError(f"{weights}: timm has no trained weights for {name}; pass a file", flag="--weights")
    return config or timm.models.PretrainedCfg(architecture=name)


def _check_tag(name: str, tag: str, what: str) -> None:
    timm = _timm(f"{PREFIX}{name}")
    configs = timm.models.get_arch_pretrained_cfgs(name)
    tags = [full.partition(".")[2] for full in configs if "." in full]
    if tag not in tags:
        near = difflib.get_close_matches(tag, tags, n=3, cutoff=0.4) or tags[:5]
        raise ValueError(f"{what}: timm has no such weights for {name}; nearest: {', '.join(near) or 'none'}")


def _download(timm: ModuleType, config: Any) -> dict[str, Tensor]:
    if not config.hf_hub_id:
        return read_parts(cached(config.url))[0].tensors
    load: Callable[..., dict[str, Tensor]] = timm.models.load_state_dict_from_hf
    try:
        if config.hf_hub_filename:
            return load(config.hf_hub_id, config.hf_hub_filename)
        try:
            return load(config.hf_hub_id, "model.safetensors")
        except FileNotFoundError:  # the hub's client, when it has no connection, after its own retries
            raise
        except OSError:  # the hub answered and has no such file
            return load(config.hf_hub_id)
    except Exception as error:  # the hub's client raises errors of its own, of its HTTP library, and of the system
        raise ValueError(
            f"weights: cannot load {config.hf_hub_id} from the Hugging Face hub: {first_line(error)}; download its "
            "model.safetensors on a machine with internet access, and pass --weights FILE"
        ) from error
