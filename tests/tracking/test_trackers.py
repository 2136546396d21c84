"""Trackers on their own libraries, each on this machine alone."""

import dataclasses
import importlib.util
import json
import logging
import os
import re
import socket
import struct
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inq_ray.tracking import trackers as trackers_module
from inq_ray.tracking.metrics import Scalar
from inq_ray.tracking.reporter import Trackers, epochs_done
from inq_ray.tracking.trackers import check_trackers, open_trackers
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.report.events import Row, Started
from tests.conftest import REPO
from tests.tracking.rows import ROWS, SUMMARY, row

pytestmark = pytest.mark.system

CONFIG = default_recipe("digits_cnn", 5).replace(
    training={"float_epochs": 2, "epochs": 1}, quantization={"iterative_steps": (0.5, 1.0)}
)
STARTED = Started(
    arch="digits_cnn", num_parameters=2, num_quantized=1, num_train=3, num_validation=4, world_size=1, device="cpu",
    precision="float32",
)  # fmt: skip


def needs(*libraries: str) -> pytest.MarkDecorator:
    missing = [library for library in libraries if importlib.util.find_spec(library) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed")


def track(name: str, folder: Path, summary: dict[str, Any] | None = SUMMARY) -> Trackers:
    folder.mkdir(exist_ok=True)
    trackers = open_trackers([name], CONFIG, folder)
    for event in (STARTED, *ROWS):
        trackers.report(event)
    trackers.close(summary)
    return trackers


def test_nothing_asked_for_is_nothing_done(tmp_path: Path) -> None:
    trackers = open_trackers([], CONFIG, tmp_path)
    trackers.report(ROWS[0])
    trackers.close(SUMMARY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["wandbb"], "--track wandbb: .*nearest: wandb"),
        (["tensorboard", "mlfow"], "nearest: mlflow"),
        (["???"], "tensorboard, mlflow, wandb"),
    ],
)
def test_an_unknown_tracker_is_refused(names: list[str], said: str, tmp_path: Path) -> None:
    for check in (check_trackers, lambda names: open_trackers(names, CONFIG, tmp_path)):
        with pytest.raises(ValueError, match=said):
            check(names)


@pytest.mark.parametrize("name", [name for name, module in trackers_module.TRACKERS.items() if module.needs()])
def test_a_library_that_is_not_installed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=rf"--track {name} needs .*, not installed: pip install .*{name}") as caught:
        check_trackers([name])
    assert "\n" not in str(caught.value)
    assert "sqlalchemy" in str(caught.value) or name != "mlflow"


def test_what_a_user_reads_names_every_tracker() -> None:
    extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    with pytest.raises(ValueError, match="nearest: ") as caught:
        check_trackers(["???"])
    for name, module in trackers_module.TRACKERS.items():
        assert set(module.needs()) <= {re.split(r"-skinny|>=", each)[0] for each in extras[name]}
        assert name in str(caught.value)
        assert f"--track {name}" in (REPO / "docs/metrics.md").read_text(), "to which the help of --track leads"


def test_with_a_server_mlflow_needs_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        trackers_module.importlib.util, "find_spec", lambda library: None if library == "sqlalchemy" else library
    )
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ValueError, match="--track mlflow needs sqlalchemy, not installed: "):
        check_trackers(["mlflow"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    check_trackers(["mlflow"])


class Memory:
    def __init__(self) -> None:
        self.logged: list[tuple[Mapping[str, float], int]] = []
        self.finished: list[Mapping[str, Scalar] | None] = []

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        self.logged.append((metrics, epoch))

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        self.finished.append(summary)


def test_every_row_is_at_its_epoch_of_the_whole_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    memory = Memory()
    given: list[Any] = []

    def start(*arguments: Any) -> Memory:
        given.extend(arguments)
        return memory

    monkeypatch.setitem(trackers_module.TRACKERS, "memory", SimpleNamespace(needs=tuple, start=start))
    trackers = open_trackers(["memory", "memory"], CONFIG, tmp_path / "run")
    for event in (STARTED, *ROWS):
        trackers.report(event)
    trackers.close(SUMMARY)
    trackers.close(None)
    name, parameters, folder = given
    assert (name, folder) == ("run", tmp_path / "run")
    assert parameters["training.batch_size"] == CONFIG.training.batch_size
    assert [epoch for _, epoch in memory.logged] == [0, 1, 2, 2, 3, 3, 4]
    assert [metrics["stage"] for metrics, _ in memory.logged] == [0, 0, 0, 1, 1, 2, 2]
    (summary,) = memory.finished
    assert summary is not None
    assert summary["top1"] == 92.1
    assert not any(name.startswith("config") for name in summary), "the parameters are there already"


@pytest.mark.parametrize("num_before", range(len(ROWS) + 1))
def test_a_run_that_goes_on_elsewhere_counts_on(
    num_before: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another driver has trackers of its own, which have heard nothing of the rows before."""
    memory = Memory()
    monkeypatch.setitem(trackers_module.TRACKERS, "memory", SimpleNamespace(needs=tuple, start=lambda *_: memory))
    for rows in (ROWS[:num_before], ROWS[num_before:]):
        trackers = open_trackers(["memory"], CONFIG, tmp_path / "run")
        for each in rows:
            trackers.report(each)
        trackers.close(None)
    assert [epoch for _, epoch in memory.logged] == [0, 1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize(
    ("training", "rows", "expected"),
    [
        ({"float_epochs": 0, "epochs": 3}, [row(0, 0), row(1, 0), row(1, 3), row(2, 0), row(2, 1)], [0, 0, 3, 3, 4]),
        ({"float_epochs": 4, "epochs_total": 5}, [row(0, 4), row(1, 3), row(2, 0), row(2, 2)], [4, 7, 7, 9]),
        ({"float_epochs": 1, "epochs_each": (2, 5)}, [row(1, 1), row(2, 0), row(1, 1), row(2, 5)], [2, 3, 2, 8]),
    ],
)
def test_epochs_are_those_of_the_stages_before_however_they_are_given(
    training: dict[str, Any], rows: list[Row], expected: list[int]
) -> None:
    config = CONFIG.replace(training=training)
    assert [epochs_done(each, config.phase_epochs) for each in rows] == expected


def test_a_plain_run_has_no_stages_to_count() -> None:
    config = dataclasses.replace(CONFIG.replace(training={"float_epochs": 0, "epochs": 3}), plain=True)
    assert [epochs_done(row(0, epoch), config.phase_epochs) for epoch in range(4)] == [0, 1, 2, 3]


@needs("tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's own imports
def test_tensorboard_reads_back_what_was_tracked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    track("tensorboard", tmp_path / "run")
    track("tensorboard", tmp_path / "failed", None)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()

    def scalars(name: str) -> list[tuple[int, float]]:
        return [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)]

    assert scalars("validation/top1") == [(0, 90.0), (1, 90.1), (2, 90.2), (3, 91.1), (4, 92.1)]
    assert scalars("quantized/top1") == [(2, 91.0), (3, 92.0)]
    assert scalars("train/loss") == [(epoch, 0.25) for epoch in (1, 2, 3, 4)]
    assert scalars("summary/top1") == [(4, 92.1)]
    assert "ab" * 32 in str(events.Tensors("summary/text_summary")[0])
    begun = events.SummaryMetadata("_hparams_/session_start_info")
    assert b"training.batch_size" in begun.plugin_data.content
    assert capsys.readouterr() == ("", "")


@needs("tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_without_a_place_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    track("tensorboard", tmp_path)
    err = capsys.readouterr().err
    assert err.startswith("warning: the run continues without the tracker tensorboard: ")
    assert err.count("\n") == 1


@needs("tensorboard")
def test_tensorboard_on_a_full_disk_is_left_out_with_one_line(tmp_path: Path) -> None:
    """In a process of its own, which may write no file beyond some bytes."""
    script = f"""
        import resource, signal
        from pathlib import Path
        from inq_ray.tracking.trackers import open_trackers
        from inq_ray.training.config.recipes import default_recipe
        from tests.tracking.rows import ROWS, SUMMARY

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
        trackers = open_trackers(["tensorboard"], default_recipe("digits_cnn", 5), Path({str(tmp_path)!r}))
        for _ in range(50):
            trackers.report(ROWS[1])
        trackers.close(SUMMARY)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=True, capture_output=True, text=True, cwd=REPO
    )
    assert ended.stdout == ""
    assert (
        ended.stderr
        == "warning: the run continues without the tracker tensorboard: OSError: [Errno 27] File too large\n"
    )


@needs("mlflow", "sqlalchemy", "alembic")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mlflow uses what sqlalchemy 2.1 deprecates
def test_mlflow_keeps_runs_beside_them_and_a_server_that_is_gone_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(logging.getLogger("mlflow"), "level", logging.INFO)
    track("mlflow", tmp_path / "one")
    track("mlflow", tmp_path / "two", None)
    assert capsys.readouterr().out == ""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("inq_ray")
    two, one = client.search_runs([experiment.experiment_id])
    assert (one.info.run_name, one.info.status) == ("one", "FINISHED")
    assert (two.info.run_name, two.info.status) == ("two", "FAILED")
    assert one.data.params["training.batch_size"] == str(CONFIG.training.batch_size)
    assert one.data.metrics["summary/top1"] == 92.1
    assert one.data.tags["digest"] == "ab" * 32
    history = client.get_metric_history(one.info.run_id, "validation/top1")
    assert [(metric.step, metric.value) for metric in history] == [
        (0, 90.0),
        (1, 90.1),
        (2, 90.2),
        (3, 91.1),
        (4, 92.1),
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    track("mlflow", tmp_path / "three")
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert err.startswith("warning: the run continues without the tracker mlflow: MlflowException: ")


@needs("mlflow")
def test_mlflow_says_of_a_server_that_is_gone_neither_user_nor_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and never listens
        port = closed.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://somebody:canary@127.0.0.1:{port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        track("mlflow", tmp_path / "run")
    said = "".join(capsys.readouterr())
    assert "the run continues without the tracker mlflow: MlflowException: " in said
    assert f"http://***@127.0.0.1:{port}" in said
    assert "canary" not in said
    assert "somebody" not in said


@needs("wandb")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_offline_leaves_its_files_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    track("wandb", tmp_path / "run")
    import wandb

    wandb.teardown()
    assert capsys.readouterr() == ("", "")
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    records = read_wandb(file)
    history = records["history"]
    assert [row["epoch"] for row in history] == [0, 1, 2, 2, 3, 3, 4]
    assert [row.get("quantized/top1") for row in history] == [None, None, None, 91.0, None, 92.0, None]
    assert any(row.get("training.batch_size") == CONFIG.training.batch_size for row in records["config"])
    assert any(row.get("digest") == "ab" * 32 for row in records["summary"])


def read_wandb(file: Path) -> dict[str, list[dict[str, Any]]]:
    """History, configuration and summary in an offline run's file."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, list[dict[str, Any]]] = {"history": [], "config": [], "summary": []}
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        parts = (record.history.item, record.run.config.update, record.summary.update)
        for rows, items in zip(found.values(), parts, strict=True):
            values = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
            rows.extend([values] if values else [])
    return found


def log_records(data: bytes) -> Iterator[bytes]:
    """Records of LevelDB's log format: blocks of 32 KiB, of pieces with crc32, length and kind; 7 bytes go first."""
    place, record = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole one, or the last piece of one
            yield record
            record = b""


@needs("wandb")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_without_an_account_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    track("wandb", tmp_path / "run")
    err = capsys.readouterr().err
    assert err.startswith("warning: the run continues without the tracker wandb: UsageError: No API key")
    assert err.count("\n") == 1


@pytest.mark.long
@needs("wandb")
def test_wandb_whose_server_is_gone_in_the_middle_holds_nothing_up(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.tracking.wandb_server", str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        cwd=REPO,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert ended.stderr.startswith("warning: the run continues without the tracker wandb: TimeoutError: ")
    assert ended.stderr.count("\n") == 1
