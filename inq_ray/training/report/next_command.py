"""Suggested next command for a run's result, with the same images and preprocessing."""

import shlex

from inq_ray.export.model_file import MODEL_FILE
from inq_ray.models.registry import is_timm
from inq_ray.models.weights.files import is_weights_file
from inq_ray.training.config import DataConfig, NetworkConfig, RunConfig
from inq_ray.training.config.option import declared
from inq_ray.training.flags.command import program, words_of
from inq_ray.training.flags.start import start_of
from inq_ray.training.task.build import preprocessing_of


def next_command(config: RunConfig, folder: str, *, is_quantized: bool, in_memory: bool) -> str:
    """Return a shell command.

    Args:
        config: Configuration of the run.
        folder: Folder of the result.
        is_quantized: Whether the run quantized; if it only trained, the next command quantizes.
        in_memory: Whether the images were small ones that are not resized unless a size is set.
    """
    start = start_of({})
    is_start = (config.data.data, config.network.arch) == (start.data.data, start.network.arch)
    if is_quantized and is_start and config.quantization.weight_bits > 3:
        return shlex.join([*program("quantize"), "--weight-bits", "3"])
    weights = f"{folder}/{MODEL_FILE}"
    words = [
        *program("evaluate" if is_quantized else "quantize"),
        "--data",
        config.data.data,
        "--arch",
        tagged_arch(config.network),
        "--weights",
        weights,
    ]
    images = _images(config, weights, in_memory=in_memory)
    return shlex.join([*words, *images])


def tagged_arch(network: NetworkConfig) -> str:
    """Return the network's name; for timm with the tag of its default weights, which determines the preprocessing."""
    name, weights = network.arch, network.weights
    if not is_timm(name) or weights is None or weights == "DEFAULT" or is_weights_file(weights):
        return name
    base = name.partition(".")[0]
    return f"{base}.{weights.removeprefix(base.removeprefix('timm/') + '.')}"


def _images(config: RunConfig, weights: str, *, in_memory: bool) -> list[str]:
    """Return the flags that are needed to see the same images in the same way when starting from the result's file."""
    data, flags = config.data, []
    seen = preprocessing_of(config.data, config.network)
    unsaid = preprocessing_of(DataConfig(), NetworkConfig(arch=tagged_arch(config.network), weights=weights))
    is_seen_alike = (seen.crop_size, seen.resize_size, seen.interpolation) == (
        unsaid.crop_size,
        unsaid.resize_size,
        unsaid.interpolation,
    )
    if not in_memory and (seen.is_sized or not is_seen_alike):
        flags += ["--crop-size", str(seen.crop_size), "--resize-size", str(seen.resize_size)]
        flags += ["--interpolation", seen.interpolation]
    repeated = [each for each in declared(config).values() if each.option.sees and each.of(config) != each.default]
    if data.holdout:
        repeated.append(declared(config)["training.seed"])  # determines the held-out images
    return [*flags, *words_of(repeated, config)]
