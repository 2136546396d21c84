"""What one may do next with a run's result: a command that sees the same images, in the same way."""

import shlex

from inq_ray.export.model_file import MODEL_FILE
from inq_ray.models.registry import is_timm
from inq_ray.models.weight_files import is_weights_file
from inq_ray.training.config import DataConfig, NetworkConfig, RunConfig
from inq_ray.training.config.option import declared
from inq_ray.training.flags.command import program, words_of
from inq_ray.training.flags.start import start_of
from inq_ray.training.task.build import image_preset


def next_command(config: RunConfig, folder: str, *, is_quantized: bool) -> str:
    """Return a line for a shell.

    Args:
        config: of the run.
        folder: of its result.
        is_quantized: whether anything was quantized; what was only trained can be.
    """
    job = program("quantize")
    start = start_of({})
    is_start = (config.data.data, config.network.arch) == (start.data.data, start.network.arch)
    if is_quantized and is_start and config.quantization.weight_bits > 3:
        return shlex.join([*job, "--weight-bits", "3"])
    weights = f"{folder}/{MODEL_FILE}"
    words = [*job, "--data", config.data.data, "--arch", tagged_arch(config.network), "--weights", weights]
    return shlex.join([*words, *_images(config, weights), *(["--evaluate"] if is_quantized else [])])


def tagged_arch(network: NetworkConfig) -> str:
    """Return the network's name; of timm's with the tag of its first weights, which says how images are seen."""
    name, weights = network.arch, network.weights
    if not is_timm(name) or weights is None or weights == "DEFAULT" or is_weights_file(weights):
        return name
    base = name.partition(".")[0]
    return f"{base}.{weights.removeprefix(base.removeprefix('timm/') + '.')}"


def _images(config: RunConfig, weights: str) -> list[str]:
    """Return the flags without which a start from the result's file would see other images, or see them otherwise."""
    data, flags = config.data, []
    seen = image_preset(config.data, config.network)
    unsaid = image_preset(DataConfig(), NetworkConfig(arch=tagged_arch(config.network), weights=weights))
    if (seen.crop_size, seen.resize_size, seen.interpolation) != (
        unsaid.crop_size,
        unsaid.resize_size,
        unsaid.interpolation,
    ):
        flags += ["--crop-size", str(seen.crop_size), "--resize-size", str(seen.resize_size)]
        flags += ["--interpolation", seen.interpolation]
    repeated = [each for each in declared(config).values() if each.option.sees and each.of(config) != each.default]
    if data.holdout:
        repeated.append(declared(config)["training.seed"])  # which images are held out
    return [*flags, *words_of(repeated, config)]
