"""Runs whose checkpoints lie on S3, a real server, over a line that is cut or slow: the same bits, no more objects."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inq_ray.storage import retry as retry_module
from inq_ray.storage.address import Location, locate
from inq_ray.training.checkpoint import store as store_module
from inq_ray.training.checkpoint.checkpoints import store_of
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.retention import kept
from inq_ray.training.checkpoint.store import CheckpointStore
from inq_ray.training.config import RunConfig
from inq_ray.training.run_folder import RunFolder
from tests.proxy import BadProxy
from tests.ranks import rank_outcomes, run_ranks
from tests.s3 import FOREIGN_SETTINGS, S3Server
from tests.training.runs import needs_digits
from tests.training.test_storage_faults import At, configured, digest_of, rows, run_with, stop

pytestmark = [needs_digits, pytest.mark.system]

FILES_OF_ONE = 3


@pytest.fixture
def s3(s3: S3Server) -> S3Server:
    s3.file_system().create_dir("runs")
    return s3


@pytest.fixture
def proxy(proxy: BadProxy, monkeypatch: pytest.MonkeyPatch) -> BadProxy:
    """A line to the server, a good one until it is told otherwise; few tries, soon after each other."""
    monkeypatch.setattr(retry_module, "NUM_TRIES", 2)
    monkeypatch.setattr(retry_module, "FIRST_PAUSE_SECONDS", 0.01)
    return proxy


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    config = configured(tmp_path_factory.mktemp("calm"))
    run_with(config, {})
    return config


def on_s3(tmp_path: Path, name: str) -> RunConfig:
    return configured(tmp_path, name).replace(output={"checkpoint_path": "s3://runs/all"})


def cut(proxy: BadProxy) -> None:
    proxy.drop_after_bytes, proxy.num_drops = 0, 10**9


def mend(proxy: BadProxy) -> None:
    proxy.num_drops = 0


class Census:
    """Counts a store's checkpoints, half ones too, after each of its steps.

    Attributes:
        most: how many there ever were beyond those that stay.
        largest: how many there ever were.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store
        self.most = self.largest = 0

    def wrap(self, retry: Callable[..., Any]) -> Callable[..., Any]:
        def counted(call: Callable[[], Any], what: str, **options: Any) -> Any:
            result = retry(call, what, **options)
            names = {path.rpartition("/")[0] for path in objects(self.store.location)}
            # Those that stay, before the newest was written or with it: it may be the best too, and then two may go.
            newest_first = self.store.entries()
            stay = max(len(kept(entries, self.store.keep_last)) for entries in (newest_first, newest_first[1:]))
            self.most = max(self.most, len(names) - stay)
            self.largest = max(self.largest, len(names))
            return result

        return counted


def objects(location: Location) -> list[str]:
    try:
        found = location.list(recursive=True)
    except ValueError:
        return []
    return [location.relative(info) for info in found if info.is_file]


def on_rank(config: RunConfig, environment: dict[str, str], stop_at: At | None) -> tuple[str, list[str], int, int]:
    """Runs on each rank; rank 0 counts what lies on S3. Returns digest, lines, and what was counted."""
    for name in FOREIGN_SETTINGS:
        os.environ.pop(name, None)
    os.environ.update(environment)
    census = Census(store_of(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "retry", census.wrap(store_module.retry))
        told = run_with(config, {stop_at: stop} if stop_at else {})
    return told.digest, told.lines, census.most, census.largest


@pytest.mark.long
def test_stopped_and_resumed_on_ranks(tmp_path: Path, s3: S3Server) -> None:
    """Nothing but the line itself is left of the checkpoints: those on S3 are all there are."""
    config = on_s3(tmp_path, "ranks")
    outcomes = rank_outcomes(on_rank, 2, config, s3.environment, (1, 2, 5))
    assert {type(outcome.error).__name__ for outcome in outcomes} == {"StoppedError"}
    assert not (RunFolder.planned(config).path / "checkpoints").exists()
    (digest, lines, most, largest), _ = run_ranks(on_rank, 2, config, s3.environment, None)
    assert lines == ["continuing from checkpoint-01-0001-00000004"]
    calm = configured(tmp_path, "calm")
    assert {told.digest for told in run_ranks(run_with, 2, calm, {})} == {digest}
    assert rows(config) == rows(calm)
    # Two ends of two stages and of the float phase, the last two, the best; and the one that is being written.
    assert most == 1
    assert largest <= 5 + 2 + 1 + 1
    location = store_of(config).location
    entries = store_of(config).entries()
    assert len(objects(location)) == FILES_OF_ONE * len(entries)
    assert {entry.position for entry in entries} == kept(entries, 2)


def test_a_line_that_is_cut_for_a_while(tmp_path: Path, calm: RunConfig, proxy: BadProxy) -> None:
    config = on_s3(tmp_path, "cut")
    told = run_with(config, {(0, 2, 3): lambda: cut(proxy), (1, 2, 3): lambda: mend(proxy)})
    assert told.digest == digest_of(calm)
    assert rows(config) == rows(calm)
    assert len(told.lines) == 2
    assert told.lines[0].startswith("a checkpoint failed, training continues and the previous one stays: cannot ")
    assert "failed 2 times" in told.lines[0]
    assert told.lines[1].startswith("checkpoints are written again: checkpoint-01-0001-00000004; ")
    assert all("\n" not in line for line in told.lines)
    location, entries = store_of(config).location, store_of(config).entries()
    assert len(objects(location)) == FILES_OF_ONE * len(entries)  # nothing of what could not be written is left


def test_a_line_that_is_cut_until_the_end(tmp_path: Path, calm: RunConfig, proxy: BadProxy) -> None:
    """The result is here; that checkpoints are not there is said."""
    config = on_s3(tmp_path, "gone")
    told = run_with(config, {(1, 1, 3): lambda: cut(proxy)})
    assert told.digest == digest_of(calm)
    assert len(told.lines) == 1
    assert told.lines[0].startswith("a checkpoint failed, training continues and the previous one stays: cannot ")


@pytest.mark.long
def test_single_answers_that_are_lost_are_asked_for_again(tmp_path: Path, calm: RunConfig, proxy: BadProxy) -> None:
    """A line that loses one answer in a while is nothing that anybody is told of."""

    def lose() -> None:
        proxy.drop_after_bytes, proxy.num_drops = 0, 1

    config = on_s3(tmp_path, "lossy")
    told = run_with(config, {(1, 1, step): lose for step in (1, 3, 5)})
    assert told.digest == digest_of(calm)
    assert told.lines == []


@pytest.mark.long
def test_a_slow_line_ends_nothing(tmp_path: Path, calm: RunConfig, proxy: BadProxy) -> None:
    proxy.delay_seconds = 0.005
    config = on_s3(tmp_path, "slow")
    told = run_with(config, {})
    assert (told.digest, told.lines) == (digest_of(calm), [])
    assert store_of(config).entries()[0].position == TrainingPosition(stage=2, epoch=2, step=0)


def test_a_line_that_is_cut_at_the_start_is_one_line(tmp_path: Path, proxy: BadProxy) -> None:
    cut(proxy)
    with pytest.raises(ValueError, match=r"cannot (read|write) s3:.*: failed 2 times in .*start again$") as error:
        run_with(on_s3(tmp_path, "start"), {})
    assert "\n" not in str(error.value)


@pytest.mark.long
def test_what_a_cut_line_has_left_is_cleared_away_before_the_next(
    tmp_path: Path, s3: S3Server, calm: RunConfig
) -> None:
    """Tensors went through, and the manifest did not: again and again, in places of their own."""
    location = locate("s3://runs/left/run")
    fails = [False]
    write = store_module._writing

    def writing(file: Location, data: bytes) -> Callable[[], None]:
        if fails[0] and file.path.endswith("manifest.json"):
            raise ValueError("cannot write: the line is cut")
        return write(file, data)

    def set_fails(value: bool) -> Callable[[], None]:
        return lambda: fails.__setitem__(0, value)

    config = configured(tmp_path).replace(output={"checkpoint_path": "s3://runs/left"})
    census = Census(store_of(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "_writing", writing)
        patch.setattr(store_module, "retry", census.wrap(store_module.retry))
        told = run_with(config, {(0, 2, 3): set_fails(True), (2, 1, 3): set_fails(False)})
    assert told.digest == digest_of(calm)
    assert census.most == 1
    assert len(objects(location)) == FILES_OF_ONE * len(store_of(config).entries())
