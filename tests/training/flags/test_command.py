"""The printed command is the configuration: reading it gives it back."""

import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.flags.command import command_of, program
from inq_ray.training.flags.parse import parse

CHANGES: list[dict[str, dict[str, Any]]] = [
    {"data": {"data": "some where", "holdout": 50, "random_erasing": 0.25}}, {"data": {"loader_workers": 0}},
    {"network": {"weights": "a b.safetensors"}}, {"quantization": {"skip": ("classifier", "layer1.*")}},
    {"training": {"lr": 0.1 + 0.2, "weight_decay": 1e-5}}, {"training": {"nesterov": True, "channels_last": False}},
    {"training": {"float_epochs": 3, "float_lr": 0.02}}, {"training": {"epochs_total": 9, "ema_decay": 0.99}},
    {"training": {"limit_batches": 4, "clip_grad_norm": 1.5}}, {"cluster": {"num_workers": 4, "max_failures": 0}},
    {"quantization": {"iterative_steps": (0.3, 0.51, 1.0), "strategy": "random"}},
    {"quantization": {"layer_bits": ("classifier=8", "layer1.*=2")}},
]  # fmt: skip


@settings(max_examples=10)
@given(
    st.sampled_from(["digits_cnn", "cifar_resnet20", "resnet18"]),
    st.integers(2, 8),
    st.lists(st.sampled_from(CHANGES), min_size=2, max_size=5),
)
def test_the_command_gives_the_configuration(arch: str, bits: int, changes: list[dict[str, dict[str, Any]]]) -> None:
    config = default_recipe(arch, bits).replace(output={"name": "best", "storage_path": "elsewhere"})
    for change in changes:
        config = config.replace(**change)
    words = shlex.split(command_of(config))
    first = program("quantize")
    assert words[: len(first)] == first
    run = parse(words[len(program("quantize")) :]).run
    assert run.replace(output={"name": "best", "storage_path": "elsewhere"}) == config


def test_it_says_no_more_than_it_has_to() -> None:
    start = shlex.join(program("quantize"))
    assert command_of(default_recipe("digits_cnn", 5)) == start
    config = default_recipe("digits_cnn", 3).replace(quantization={"iterative_steps": (0.5, 1.0)})
    assert command_of(config) == f"{start} --weight-bits 3 --iterative-steps 0.5 1"


def test_what_no_flags_can_say_is_refused() -> None:
    config = RunConfig().replace(quantization={"skip": ("--help",)})
    with pytest.raises((ValueError, SystemExit)):
        command_of(config)


def test_numbers_of_each_stage_are_in_the_command() -> None:
    each = {"epochs_each": (0, 2), "lr_each": (0.1 + 0.2, 1.0)}
    config = default_recipe("digits_cnn", 5).replace(quantization={"iterative_steps": (0.5, 1.0)}, training=each)
    words = shlex.split(command_of(config))
    assert parse(words[len(program("quantize")) :]).run == config
