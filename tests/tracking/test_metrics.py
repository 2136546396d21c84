import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inq_ray.tracking.metrics import flat, numbers, row_metrics
from inq_ray.training.config import RunConfig
from inq_ray.training.report.events import Row
from tests.tracking.rows import SUMMARY, row


def test_an_epoch_has_the_metrics_of_training_and_of_validation() -> None:
    assert row_metrics(row(1, 1)) == {
        "stage": 1.0, "portion": 0.5, "lr": 0.1, "images_per_second": 1234.0, "num_bad_images": 0.0,
        "num_skipped_steps": 0.0,
        "validation/top1": 91.1, "validation/top5": 99.0, "validation/loss": 0.5, "validation/seconds": 1.0,
        "train/loss": 0.25, "train/top1": 98.0, "train/seconds": 2.0,
    }  # fmt: skip


def test_right_after_quantizing_accuracy_has_a_name_of_its_own() -> None:
    assert row_metrics(row(1, 0)) == {
        "stage": 1.0, "portion": 0.5, "quantized/top1": 91.0, "quantized/top5": 99.0, "quantized/loss": 0.5,
        "quantized/seconds": 1.0, "num_bad_images": 0.0, "num_skipped_steps": 0.0,
    }  # fmt: skip
    assert "validation/top1" in row_metrics(row(0, 0)), "the float network as given"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_left_out(value: float) -> None:
    metrics = row_metrics(row(1, 1, loss=value, train_loss=value))
    assert "validation/loss" not in metrics
    assert "train/loss" not in metrics
    assert "validation/top1" in metrics


def test_every_field_of_a_row_has_a_name() -> None:
    full = {field.name: 1.0 for field in dataclasses.fields(Row)}
    assert len(row_metrics(Row(**{**full, "stage": 1, "epoch": 1}))) == len(full) - 1


def test_a_configuration_becomes_dotted_names() -> None:
    values = flat(dataclasses.asdict(RunConfig()))
    assert values["training.lr"] == 0.001
    assert values["quantization.iterative_steps"] == "0.5 0.75 0.875 1.0"
    assert values["network.weights"] == "None"
    assert values["plain"] is False
    assert all(isinstance(value, bool | int | float | str) for value in values.values())


def test_a_summary_becomes_dotted_names() -> None:
    values = flat(SUMMARY)
    assert values["stages.1.top1"] == 92.1
    assert values["config.training.lr"] == 0.1
    assert set(numbers(values)) == {
        "weight_bits", "top1", "config.training.lr", "stages.0.stage", "stages.0.top1", "stages.1.stage",
        "stages.1.top1",
    }  # fmt: skip


_LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text("ab", max_size=2)
_NAMES = st.text("abc", min_size=1, max_size=2)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=50)
@given(st.dictionaries(_NAMES, _VALUES, max_size=3))
def test_anything_of_json_becomes_flat(values: dict[str, object]) -> None:
    result = flat(values)
    json.dumps(result, allow_nan=False)
    assert all(isinstance(value, bool | int | float | str) for value in result.values())
    assert all(math.isfinite(value) for value in numbers(result).values())
