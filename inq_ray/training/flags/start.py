"""Starting configuration of flags: the recipe or file that they name, or the recipe of the network and bits."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from inq_ray.core.codebook import MIN_BITS
from inq_ray.data.source import default_arch
from inq_ray.training.config import DataConfig, RunConfig
from inq_ray.training.config.option import declared
from inq_ray.training.config.recipes import (
    LOSSLESS,
    codebook_at,
    default_recipe,
    lossless_recipe,
    recipe,
    trained_first,
)

_LAYER_BITS = "quantization.layer_bits"


def start_of(given: Mapping[str, Any], *, recipe_name: str | None = None, file: str | None = None) -> RunConfig:
    """Return the configuration that these values change, without options that they replace.

    Args:
        given: Values that were typed, by dotted name.
        recipe_name: Value of --recipe.
        file: Value of --config.

    Raises:
        ValueError: The recipe or file does not exist, or both are given.
    """
    if file is not None and recipe_name is not None:
        raise ValueError("--config and --recipe exclude each other: leave one of them out")
    start = _recipe(given, recipe_name) if file is None else RunConfig.from_file(file)
    if file is None and any(word.rpartition("=")[2] == str(MIN_BITS) for word in given.get(_LAYER_BITS, ())):
        start = start.replace(quantization={"codebook": codebook_at(MIN_BITS)})
    if file is None and given.get("training.float_epochs"):
        start = trained_first(start)
    if "quantization.iterative_steps" in given:  # a recipe's values per stage are for its own stages
        start = start.evenly()
    if given.get("quantization.post_training"):
        start = _at_once(start)
    start = _without_replaced(start, given)
    return start if file is not None else _without_float_training(start, given)


def with_values(start: RunConfig, given: Mapping[str, Any]) -> RunConfig:
    """Return a configuration with these values, by dotted name.

    Raises:
        ValueError: A value is not allowed, alone or with the others; names the flag.
    """
    sections: dict[str, dict[str, Any]] = {}
    top = {name: value for name, value in given.items() if "." not in name}
    for name, value in given.items():
        section, _, field = name.rpartition(".")
        if section:
            sections.setdefault(section, {})[field] = value
    changed = {name: dataclasses.replace(getattr(start, name), **fields) for name, fields in sections.items()}
    return dataclasses.replace(start, **changed, **top)


def _recipe(given: Mapping[str, Any], name: str | None) -> RunConfig:
    arch = given.get("network.arch") or default_arch(given.get("data.data", DataConfig().data))
    bits = given.get("quantization.weight_bits", 5)
    bits = bits if 2 <= bits <= 8 else 5  # other values are refused later, naming the flag
    if name is None:
        return default_recipe(arch, bits)
    return lossless_recipe(arch, bits) if name == LOSSLESS else recipe(name)


def _at_once(start: RunConfig) -> RunConfig:
    """Return a start with one stage and no training."""
    training = {"epochs": 0, "epochs_each": (), "epochs_total": None, "lr_each": (), "bn_images": 0, "distill": False}
    others = {"ema_decay": None, "ema_share": None, "lr_probe": False}
    return start.replace(quantization={"iterative_steps": (1.0,)}, training=training | others)


def _without_replaced(start: RunConfig, given: Mapping[str, Any]) -> RunConfig:
    """Return the start without options that the given ones replace, such as --epochs-each by --epochs."""
    options = declared(RunConfig)
    sections: dict[str, dict[str, Any]] = {}
    for name in given:
        for replaced in options[name].option.replaces:
            section = options[name].section
            sections.setdefault(section, {})[replaced] = options[f"{section}.{replaced}"].default
    return start.replace(**sections)


def _without_float_training(start: RunConfig, given: Mapping[str, Any]) -> RunConfig:
    """Return the recipe without float training if it is not needed, or without stages."""
    plain, trained = given.get("plain", False), given.get("network.weights") is not None
    if plain:  # values per stage do not apply
        recipe_training = default_recipe(start.network.arch, start.quantization.weight_bits).training
        start = dataclasses.replace(start, training=recipe_training)
    training = start.training
    if training.float_epochs == 0 or not (plain or trained):
        return start
    if plain:
        start = start.replace(training={"epochs": training.float_epochs, "lr": training.float_lr})
    return start.replace(training={"float_epochs": 0})
