import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inq_ray.training.config import (
    ClusterConfig,
    DataConfig,
    NetworkConfig,
    OutputConfig,
    QuantizationConfig,
    RunConfig,
    TrainingConfig,
)
from inq_ray.training.config.run import spread_epochs
from inq_ray.training.config.training import EpochsSpread

_ONE_GPU = ClusterConfig(use_gpu=True, num_workers=1)

BAD_FIELDS = [
    (DataConfig, {"holdout": -1}, "--holdout"),
    (QuantizationConfig, {"weight_bits": 1}, "--weight-bits"),
    (QuantizationConfig, {"weight_bits": 9}, "--weight-bits"),
    (QuantizationConfig, {"iterative_steps": ()}, "--iterative-steps"),
    (QuantizationConfig, {"iterative_steps": (0.5, 0.5, 1.0)}, "--iterative-steps"),
    (QuantizationConfig, {"iterative_steps": (0.5, 0.4, 1.0)}, "--iterative-steps"),
    (QuantizationConfig, {"iterative_steps": (0.0, 1.0)}, "--iterative-steps"),
    (QuantizationConfig, {"iterative_steps": (0.5, 1.5)}, "--iterative-steps"),
    (QuantizationConfig, {"iterative_steps": (0.5, 0.75)}, "--iterative-steps"),
    (QuantizationConfig, {"iterative_steps": (math.nan, 1.0)}, "--iterative-steps"),
    (QuantizationConfig, {"strategy": "best"}, "--strategy"),
    (QuantizationConfig, {"codebook": "least"}, "--codebook"),
    *((DataConfig, {"mean": value}, "--mean") for value in ((0.5, 0.5), (math.nan,), (123.7, 116.3, 103.5))),
    *((DataConfig, {"std": value}, "--std") for value in ((0.5, 0.5, 0.0), (-0.1,), (math.inf,))),
    (TrainingConfig, {"epochs": -1}, "--epochs"),
    (RunConfig, {"training": TrainingConfig(teacher="t.pth")}, "--distill"),
    (
        RunConfig,
        {"training": TrainingConfig(distill=True, teacher_arch="resnet50")},
        "--teacher-arch needs trained weights: name those of this network with --teacher",
    ),
    (TrainingConfig, {"distill_temperature": 0.0}, "--distill-temperature"),
    (TrainingConfig, {"distill_temperature": math.nan}, "--distill-temperature"),
    (TrainingConfig, {"distill_labels": 1.0}, "--distill-labels"),
    (TrainingConfig, {"float_epochs": -1}, "--float-epochs"),
    (TrainingConfig, {"batch_size": 0}, "--batch-size"),
    (TrainingConfig, {"accumulate": 0}, "--accumulate"),
    (TrainingConfig, {"seed": -1}, "--seed"),
    (TrainingConfig, {"bn_images": -1}, "--bn-images"),
    (RunConfig, {"plain": True, "training": TrainingConfig(bn_images=5)}, "--plain .* --bn-images"),
    (TrainingConfig, {"seed": 2**63}, "--seed"),
    *((TrainingConfig, {"lr": value}, "--lr") for value in (0.0, -1.0, math.nan, math.inf)),
    *((TrainingConfig, {"float_lr": value}, "--float-lr") for value in (0.0, math.nan)),
    *((TrainingConfig, {"weight_decay": value}, "--weight-decay") for value in (-1e-4, math.nan, math.inf)),
    *((TrainingConfig, {"momentum": value}, "--momentum") for value in (-0.1, 1.0, math.nan)),
    (TrainingConfig, {"momentum": 0.0, "nesterov": True}, "--nesterov"),
    (TrainingConfig, {"lr_schedule": "cosin"}, "--lr-schedule"),
    *((TrainingConfig, {"lr_step_epochs": value}, "--lr-step-epochs") for value in (0.0, math.inf)),
    *((TrainingConfig, {"lr_gamma": value}, "--lr-gamma") for value in (0.0, 1.1, math.nan)),
    *((TrainingConfig, {"warmup_epochs": value}, "--warmup-epochs") for value in (-1.0, math.nan)),
    (TrainingConfig, {"precision": "fp8"}, "--precision"),
    *((ClusterConfig, {"num_workers": value}, "--num-workers") for value in (0, "8..2", "0..2", "many", "")),
    *((ClusterConfig, {"placement_timeout": value}, "--placement-timeout") for value in ("", "0s", "10", "1d", "s")),
    (ClusterConfig, {"cpus_per_worker": 0}, "--cpus-per-worker"),
    *((OutputConfig, {"name": name}, "--name") for name in ("", "..", ".hidden", "a/b", "a b", "a\n", "x" * 200, "ä")),
    (OutputConfig, {"storage_path": "s3://bucket/runs"}, "--storage-path"),
    (RunConfig, {"training": TrainingConfig(precision="fp16")}, "--use-gpu"),
    (RunConfig, {"training": TrainingConfig(cuda_graphs=True)}, "--cuda-graphs needs --use-gpu"),
    (RunConfig, {"training": TrainingConfig(cuda_graphs=True), "cluster": ClusterConfig(use_gpu=True)}, "one worker"),
    *(
        (
            RunConfig,
            {"training": TrainingConfig(cuda_graphs=True, **{name: value}), "cluster": _ONE_GPU},
            "does not work",
        )
        for name, value in (("compile", True), ("accumulate", 2), ("precision", "fp16"))
    ),
    (DataConfig, {"jpeg_decoder": "gpu"}, "--jpeg-decoder must be one of cpu, nvjpeg, got 'gpu'"),
    (RunConfig, {"data": DataConfig(jpeg_decoder="nvjpeg")}, "--jpeg-decoder nvjpeg needs --use-gpu"),
    *(
        (
            RunConfig,
            {"data": DataConfig(jpeg_decoder="nvjpeg", **{name: value}), "cluster": _ONE_GPU},
            "--jpeg-decoder nvjpeg does not work with --",
        )
        for name, value in (("auto_augment", "augmix"), ("random_erasing", 0.1))
    ),
    (RunConfig, {"training": TrainingConfig(batch_size=3, accumulate=2)}, "--batch-size 3"),
    (RunConfig, {"training": TrainingConfig(batch_size=7), "cluster": ClusterConfig(num_workers="2..8")}, "least 8"),
    (RunConfig, {"plain": True, "training": TrainingConfig(float_epochs=1)}, "--float-epochs"),
    (RunConfig, {"plain": True, "training": TrainingConfig(epochs=0)}, "--epochs"),
    (TrainingConfig, {"epochs_each": (1, -1)}, "--epochs-each"),
    *((TrainingConfig, {"ema_share": value}, "--ema-share") for value in (0.0, 1.1, math.nan)),
    (TrainingConfig, {"ema_share": 0.3, "ema_decay": 0.9}, "exclude"),
    (TrainingConfig, {"epochs_each": (1, 1), "epochs_total": 2}, "--epochs-each and --epochs-total"),
    *((TrainingConfig, {"lr_each": (0.1, value)}, "--lr-each") for value in (0.0, -1.0, math.nan, math.inf)),
    (RunConfig, {"training": TrainingConfig(epochs_each=(1, 2, 3))}, "--epochs-each .* 4 stages .* got 3: 1 2 3"),
    (RunConfig, {"training": TrainingConfig(lr_each=(0.1,) * 5)}, "--lr-each .* 4 stages .* got 5: 0.1"),
    (RunConfig, {"plain": True, "training": TrainingConfig(lr_each=(0.1,) * 4)}, "--plain .* --lr instead of --lr-e"),
]


@pytest.mark.parametrize(("section", "fields", "flag"), BAD_FIELDS)
def test_a_bad_field_is_refused_by_its_flag_in_one_line(section: Any, fields: dict[str, Any], flag: str) -> None:
    with pytest.raises(ValueError, match=flag) as caught:
        section(**fields)
    assert len(str(caught.value).splitlines()) == 1


def positive(most: float) -> st.SearchStrategy[float]:
    return st.floats(min_value=0, max_value=most, exclude_min=True)


configs = st.builds(
    RunConfig,
    data=st.builds(DataConfig, data=st.text(), holdout=st.integers(0, 9**9)),
    network=st.builds(NetworkConfig, arch=st.text(), weights=st.none() | st.text()),
    quantization=st.builds(
        QuantizationConfig,
        weight_bits=st.integers(2, 8),
        iterative_steps=st.sets(positive(1.0)).map(lambda portions: tuple(sorted(portions | {1.0}))),
        strategy=st.sampled_from(["pruning", "random"]),
        skip=st.lists(st.text()).map(tuple),
    ),
    training=st.builds(
        TrainingConfig,
        epochs=st.integers(1, 10**6),
        batch_size=st.integers(64, 10**6),
        accumulate=st.integers(1, 4),
        lr=positive(1e6),
        momentum=st.floats(0, 1, exclude_max=True),
        weight_decay=st.floats(0, 1e6),
        seed=st.integers(0, 2**63 - 1),
        lr_schedule=st.sampled_from(["cosine", "step", "constant"]),
        precision=st.sampled_from(["auto", "float32", "bf16"]),
        channels_last=st.booleans(),
    ),
    cluster=st.builds(
        ClusterConfig, num_workers=st.integers(1, 16) | st.sampled_from(["2..8", "3..3"]), use_gpu=st.booleans()
    ),
    output=st.builds(
        OutputConfig, name=st.none() | st.from_regex(r"[a-z][a-z0-9._-]{0,9}", fullmatch=True), overwrite=st.booleans()
    ),
    plain=st.booleans(),
)


@given(st.integers(1, 12), st.integers(0, 60), st.sampled_from(["even", "late"]))
def test_epochs_of_all_stages_add_up(num_stages: int, more: int, spread: EpochsSpread) -> None:
    epochs = spread_epochs(num_stages + more, num_stages, spread)
    assert (len(epochs), sum(epochs)) == (num_stages, num_stages + more)
    assert min(epochs) >= 1
    if spread == "late" and num_stages > 1:
        assert list(epochs[:-1]) == sorted(epochs[:-1])
        assert epochs[-1] == 1


@pytest.mark.parametrize(
    ("total", "num_stages", "spread", "epochs"),
    [
        (6, 4, "even", (2, 2, 1, 1)),
        (2, 4, "even", (1, 1, 0, 0)),
        (12, 4, "late", (2, 4, 5, 1)),
        (12, 8, "late", (1, 1, 1, 2, 2, 2, 2, 1)),
        (5, 1, "late", (5,)),
    ],
)
def test_epochs_of_stages(total: int, num_stages: int, spread: EpochsSpread, epochs: tuple[int, ...]) -> None:
    assert spread_epochs(total, num_stages, spread) == epochs


def test_too_few_epochs_for_later_stages_to_have_more() -> None:
    training = TrainingConfig(epochs_total=3, epochs_spread="late")
    with pytest.raises(ValueError, match=r"^--epochs-total 3 is too few for 4 stages, .* use at least 4, or fewer"):
        RunConfig(training=training)
    assert RunConfig(training=TrainingConfig(epochs_total=3)).stage_epochs == (1, 1, 1, 0)


@settings(max_examples=30)
@given(configs)
def test_json_keeps_a_configuration_word_for_word(config: RunConfig) -> None:
    read = RunConfig.from_json(config.to_json())
    assert read == config
    assert read.to_json() == config.to_json()


def test_what_json_leaves_out_has_its_default() -> None:
    assert RunConfig.from_json("{}") == RunConfig()
    assert RunConfig.from_json('{"training": {"lr": 1}}') == RunConfig().replace(training={"lr": 1.0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "the configuration must be an object"),
        ("null", "the configuration must be an object"),
        ('{"training": 3}', "training must be an object .* got 3"),
        ('{"trainng": {}}', "'trainng'.*training"),
        ('{"training": {"epoch": 1}}', "'training.epoch'.*training.epochs"),
        ('{"training": {"epochs": "1"}}', "training.epochs must be a whole number, got '1'"),
        ('{"training": {"epochs": 1.0}}', "training.epochs must be a whole number, got 1.0"),
        ('{"training": {"epochs": true}}', "training.epochs must be a whole number, got True"),
        ('{"training": {"epochs": null}}', "training.epochs must be a whole number, got None"),
        ('{"training": {"lr": "x"}}', "training.lr must be a number, got 'x'"),
        ('{"training": {"lr": true}}', "training.lr must be a number, got True"),
        (f'{{"training": {{"lr": 1{"0" * 400}}}}}', "training.lr must be a number"),
        ('{"training": {"lr": NaN}}', "--lr must be finite and above 0, got nan"),
        ('{"training": {"nesterov": 1}}', "training.nesterov must be true or false, got 1"),
        ('{"training": {"precision": 16}}', "training.precision must be one of auto, .* got 16"),
        ('{"training": {"precision": "fp8"}}', "--precision must be one of auto, .* got 'fp8'"),
        ('{"quantization": {"iterative_steps": 1}}', "quantization.iterative_steps must be a list of numbers, got 1"),
        ('{"quantization": {"iterative_steps": ["a"]}}', "quantization.iterative_steps must be a list of numbers"),
        ('{"quantization": {"iterative_steps": [0.5]}}', "--iterative-steps"),
        ('{"quantization": {"skip": "fc"}}', "quantization.skip must be a list of texts, got 'fc'"),
        ('{"cluster": {"num_workers": "2..x"}}', "--num-workers must be a number, or a range such as 2..8, got '2..x'"),
        ('{"cluster": {"num_workers": 2.5}}', "cluster.num_workers must be a whole number or a text, got 2.5"),
        ('{"network": {"weights": 3}}', "network.weights must be a text or null, got 3"),
        ('{"network": {"arch": null}}', "network.arch must be a text, got None"),
        ('{"plain": "yes"}', "plain must be true or false, got 'yes'"),
    ],
)
def test_json_that_is_not_allowed_is_named_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        RunConfig.from_json(text)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


def test_every_field_is_checked_for_its_type() -> None:
    for section in dataclasses.fields(RunConfig):
        if dataclasses.is_dataclass(section.type):
            for field in dataclasses.fields(section.type):
                with pytest.raises(ValueError, match=f"{section.name}.{field.name} must be"):
                    RunConfig.from_json(json.dumps({section.name: {field.name: {"a": 1}}}))


def test_a_file_is_named_where_it_cannot_be_read(tmp_path: Path) -> None:
    missing, binary, broken = tmp_path / "missing.json", tmp_path / "binary.json", tmp_path / "broken.json"
    binary.write_bytes(b"\xff\xfe\x00")
    broken.write_text("{'a': 1}")
    for path in (missing, binary, broken, tmp_path):
        with pytest.raises(ValueError, match=f"--config {path}: ") as caught:
            RunConfig.from_file(str(path))
        assert len(str(caught.value).splitlines()) == 1


def test_a_file_gives_the_configuration_back(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    config = RunConfig().replace(training={"lr": 0.3}, output={"name": "a"})
    path.write_text(config.to_json())
    assert RunConfig.from_file(str(path)) == config


def test_replace_changes_fields_of_sections_and_checks_them() -> None:
    config = RunConfig().replace(training={"lr": 0.5}, cluster={"num_workers": 3})
    assert (config.training.lr, config.cluster.num_workers, config.quantization) == (0.5, 3, QuantizationConfig())
    with pytest.raises(ValueError, match="--lr"):
        config.replace(training={"lr": 0.0})


def test_workers_are_a_number_or_a_range() -> None:
    assert ClusterConfig().num_workers == 2
    assert ClusterConfig(num_workers="4").num_workers == ClusterConfig(num_workers="4..4").num_workers == 4
    elastic = RunConfig().replace(cluster={"num_workers": "2..8", "placement_timeout": "2m"})
    assert (elastic.cluster.num_workers, elastic.cluster.workers) == ("2..8", (2, 8))
    assert elastic.cluster.placement_seconds == 120
    assert '"num_workers": "2..8"' in elastic.to_json()
    assert '"num_workers": 2,' in RunConfig().to_json()
