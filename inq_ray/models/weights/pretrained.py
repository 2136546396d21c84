"""Pretrained weights: `--weights` as a file, or as a name of torchvision's or timm's trained weights."""

from pathlib import Path

from inq_ray.files.shown import one_line
from inq_ray.models import timm_networks, torchvision_networks
from inq_ray.models.registry import check_arch, is_ours, is_own, is_timm
from inq_ray.models.weights.download import cached
from inq_ray.models.weights.files import WeightsError, existing_file, is_weights_file


def resolve_weights(arch: str, weights: str | None) -> Path | None:
    """Return the file of a network's trained weights, downloaded if necessary.

    The processes of a node download once. The files are in torch.hub's folder ($TORCH_HOME), which torchvision uses as
    well. Only weights that timm has to convert are read into memory.

    Args:
        arch: A name as in `create`.
        weights: A file; for torchvision's networks "DEFAULT", "IMAGENET1K_V1", ... (a member of the network's enum);
            for timm's "DEFAULT" or a tag; or None.

    Returns:
        A file for `load_weights`, or None for None.

    Raises:
        ValueError: The file does not exist, no weights have this name, or downloading failed; one line.
        TimeoutError: Another process has been downloading for an hour.
    """
    if weights is None:
        return None
    check_arch(arch)
    if is_weights_file(weights):
        return existing_file(weights)
    if is_own(arch) or is_ours(arch):
        raise WeightsError(
            f"{one_line(weights, 100)}: no such file; weights by name exist only for networks of torchvision and "
            f"timm, not for {arch}",
            flag="--weights",
        )
    if is_timm(arch):
        return timm_networks.weights_file(arch, weights)
    return cached(torchvision_networks.weights(arch, weights).url)


def has_weights(arch: str) -> bool:
    """Return whether a network has trained weights by name.

    Raises:
        ValueError: There is no such network, or timm is not installed.
    """
    if is_own(arch) or is_ours(arch):
        return False
    check_arch(arch)
    return timm_networks.has_weights(arch) if is_timm(arch) else len(torchvision_networks.all_weights(arch)) > 0


def stated_top1(arch: str, weights: str | None) -> float | None:
    """Return the published top-1 on ImageNet-1K, in percent, of trained weights by name.

    torchvision publishes it; timm's package does not.

    Args:
        arch: A name as in `create`.
        weights: As in `resolve_weights`.

    Returns:
        None if there is none, such as for a file.

    Raises:
        ValueError: No weights of this name.
    """
    if weights is None or is_weights_file(weights) or is_timm(arch) or is_own(arch) or is_ours(arch):
        return None
    metrics = torchvision_networks.weights(arch, weights).meta.get("_metrics", {})
    top1: float | None = metrics.get("ImageNet-1K", {}).get("acc@1")
    return top1
