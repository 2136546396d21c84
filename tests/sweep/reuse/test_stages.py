"""A run that begins with another run's stage end has the bits of the same run alone; on ranks, without Ray."""

import csv
from pathlib import Path
from typing import Any

import pytest

from inq_ray.sweep.reuse.keys import Origin, stage_keys
from inq_ray.sweep.reuse.stages import StageStore, end_of, seed_from_stage
from inq_ray.training.checkpoint.files import DamagedError
from inq_ray.training.config import RunConfig
from inq_ray.training.run_folder import RunFolder
from tests.ranks import run_ranks
from tests.training.runs import needs_digits, read_summary, run_here, tiny_config

pytestmark = [needs_digits, pytest.mark.system]

ORIGIN = Origin(weights="w", teacher="", code="", fingerprint="f", numerics="n")


def configured(storage: Path, name: str, schedule: tuple[float, ...], size: int, **sections: Any) -> RunConfig:
    quantization = {"iterative_steps": schedule, **sections.pop("quantization", {})}
    training = {"batch_size": 200, "momentum": 0.8, "limit_batches": 3, **sections.pop("training", {})}
    workers = {"num_workers": size}
    return tiny_config(storage, name, quantization=quantization, training=training, cluster=workers, **sections)


def digest_of(config: RunConfig) -> tuple[str, int]:
    """Runs; returns the digest and how many epochs were trained here, not before."""
    finished = run_here(config)
    return finished.summary["digest"], sum(row.epoch > 0 for row in finished.told.rows)


def metrics(config: RunConfig) -> list[tuple[Any, ...]]:
    rows = read_rows(RunFolder.planned(config))
    return [(row["stage"], row["portion"], row["epoch"], row["top1"], row["loss"], row["lr"]) for row in rows]


def read_rows(folder: RunFolder) -> list[dict[str, str]]:
    with folder.metrics_csv.open(newline="") as table:
        return list(csv.DictReader(table))


@pytest.mark.parametrize(
    ("size", "stage", "options"),
    [
        pytest.param(1, 0, {"data": {"holdout": 300}}, marks=pytest.mark.long),
        (2, 2, {}),
        pytest.param(
            3,
            1,
            {"training": {"ema_decay": 0.9, "lr_schedule": "step"}, "quantization": {"strategy": "random"}},
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_trial_with_reuse_has_the_bits_of_the_same_trial_alone(
    size: int, stage: int, options: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """From an end that the two schedules share: before the first stage, after it, and after the second."""
    first = configured(tmp_path, "first", (0.5, 0.75, 0.875, 1.0), size, **options)
    alone, config = (configured(tmp_path, name, (0.5, 0.75, 1.0), size, **options) for name in ("alone", "reusing"))
    keys = stage_keys(first, ORIGIN)
    assert stage_keys(alone, ORIGIN) == {shared: keys[shared] for shared in (0, 1, 2)}
    run_ranks(digest_of, size, first)
    (expected, num_epochs), *_ = run_ranks(digest_of, size, alone)
    assert num_epochs == 4
    end = end_of(first, stage)
    assert end is not None
    store = StageStore(tmp_path / "stages")
    store.put(keys[stage], end)
    seed_from_stage(store.get(keys[stage]), config)
    (digest, num_trained), *_ = run_ranks(digest_of, size, config)
    assert digest == expected
    assert num_trained == 3 - stage
    assert metrics(config) == metrics(alone)
    ours, calm = (read_summary(RunFolder.planned(each)) for each in (config, alone))
    assert ours["stages"] == calm["stages"]
    assert ours["verification"] == calm["verification"]


def test_other_rates_and_epochs_later_share_the_stages_before(tmp_path: Path) -> None:
    def of(name: str, *each: tuple[int, float]) -> RunConfig:
        epochs, rates = zip(*each, strict=True)
        training = {"epochs_each": epochs, "lr_each": rates}
        return configured(tmp_path, name, (0.5, 0.75, 1.0), 1, training=training)

    first = of("first", (1, 0.02), (2, 0.01), (1, 0.004))
    alone, config = (of(name, (1, 0.02), (2, 0.01), (2, 0.02)) for name in ("alone", "reusing"))
    digest_of(first)
    expected = digest_of(alone)
    assert stage_keys(first, ORIGIN) == stage_keys(config, ORIGIN)
    assert stage_keys(of("other", (1, 0.02), (2, 0.02), (1, 0.004)), ORIGIN)[2] != stage_keys(first, ORIGIN)[2]
    end = end_of(first, 2)
    assert end is not None
    seed_from_stage(end, config)
    digest, num_trained = digest_of(config)
    assert (digest, num_trained) == (expected[0], 2)
    assert metrics(config) == metrics(alone)


def test_other_bits_share_the_training_before_the_first_stage(tmp_path: Path) -> None:
    first = configured(tmp_path, "first", (1.0,), 1)
    digest_of(first)
    options = {"quantization": {"weight_bits": 3}, "training": {"lr": 0.3}}
    alone, config = (configured(tmp_path, name, (0.5, 1.0), 1, **options) for name in ("alone", "reusing"))
    expected, _ = digest_of(alone)
    assert stage_keys(first, ORIGIN)[0] == stage_keys(config, ORIGIN)[0]
    end = end_of(first, 0)
    assert end is not None
    assert [(row.stage, row.epoch) for row in end.snapshot.facts.rows] == [(0, 1)]
    seed_from_stage(end, config)
    assert digest_of(config) == (expected, 2)
    assert read_summary(RunFolder.planned(config))["events"]["counts"] == {}, "it was never interrupted"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    config = tiny_config(tmp_path_factory.mktemp("runs"))
    run_here(config)
    return config


def test_what_is_stored_is_whole_or_not_there(finished: RunConfig, tmp_path: Path) -> None:
    store = StageStore(tmp_path / "stages")
    assert store.keys() == set()
    end = end_of(finished, 1)
    assert end is not None
    store.put("key", end)
    assert store.keys() == {"key"}
    (tmp_path / "stages" / "half").mkdir()
    assert store.keys() == {"key"}
    assert store.get("key").top1 == end.top1
    store.delete("key")
    store.delete("key")
    assert store.keys() == set()
    with pytest.raises(DamagedError):
        store.get("key")


def test_a_damaged_end_and_one_of_another_key_are_refused(finished: RunConfig, tmp_path: Path) -> None:
    store = StageStore(tmp_path / "stages")
    end = end_of(finished, 0)
    assert end is not None
    store.put("one", end)
    (tmp_path / "stages" / "one").rename(tmp_path / "stages" / "other")
    with pytest.raises(DamagedError, match="another key"):
        store.get("other")
    store.put("one", end)
    (file,) = (tmp_path / "stages" / "one").rglob("tensors.safetensors")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamagedError, match="SHA-256 differs"):
        store.get("one")


def test_an_end_that_is_not_there_yet_is_none_and_one_of_other_workers_is_refused(finished: RunConfig) -> None:
    missing = finished.replace(quantization={"iterative_steps": (0.4, 0.5, 0.6, 1.0)})
    assert end_of(missing, 3) is None
    with pytest.raises(ValueError, match=r"it was trained with 1 worker(?!s)"):
        end_of(finished.replace(cluster={"num_workers": 2}), 1)


def test_a_storage_that_is_away_is_not_made_again(finished: RunConfig, short_pauses: None, tmp_path: Path) -> None:
    end = end_of(finished, 1)
    assert end is not None
    store = StageStore(tmp_path / "sweep" / "stages")
    with pytest.raises(ValueError, match=r"^cannot write .*: failed 6 times .*the storage of .*/sweep is missing"):
        store.put("key", end)
    assert not (tmp_path / "sweep").exists()
