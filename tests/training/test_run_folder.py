import csv
import json
import os
from pathlib import Path

import pytest

from inq_ray.training.config import RunConfig
from inq_ray.training.report.events import Row
from inq_ray.training.run_folder import RunFolder, default_name

ROW = Row(stage=1, portion=0.5, epoch=0, top1=90.0, top5=99.0, loss=0.25, validation_seconds=0.5)


def configured(storage: Path, name: str = "first", **output: bool) -> RunConfig:
    return RunConfig().replace(output={"storage_path": str(storage), "name": name, **output})


def test_a_new_run_has_its_configuration_and_nothing_else(tmp_path: Path) -> None:
    config = configured(tmp_path / "deep" / "runs")
    assert not RunFolder.planned(config).path.exists()
    folder = RunFolder.create(config)
    assert folder == RunFolder.planned(config)
    assert folder.path == tmp_path / "deep" / "runs" / "first"
    assert [path.name for path in folder.path.iterdir()] == ["config.json"]
    assert RunConfig.from_file(str(folder.config)) == config


@pytest.mark.parametrize("finished", [False, True])
def test_a_taken_name_is_refused_and_left_alone(tmp_path: Path, finished: bool) -> None:
    folder = RunFolder.create(configured(tmp_path))
    (folder.path / "model.safetensors").write_text("precious")
    if finished:
        folder.write_summary({})
    before = sorted(folder.path.iterdir())
    state = "a finished run" if finished else "an unfinished run"
    for attempt in (lambda: RunFolder.create(configured(tmp_path)), lambda: folder.check_free(overwrite=False)):
        with pytest.raises(ValueError, match=f"--name first: .*{state}: use another --name, or .*--overwrite"):
            attempt()
    assert sorted(folder.path.iterdir()) == before


def test_overwrite_deletes_an_earlier_run(tmp_path: Path) -> None:
    (RunFolder.create(configured(tmp_path)).path / "old").write_text("")
    folder = RunFolder.create(configured(tmp_path, overwrite=True))
    assert [path.name for path in folder.path.iterdir()] == ["config.json"]


def test_the_saved_file_does_not_overwrite_the_run_it_describes(tmp_path: Path) -> None:
    folder = RunFolder.create(configured(tmp_path, overwrite=True))
    saved = RunConfig.from_file(str(folder.config))
    with pytest.raises(ValueError, match="--name first"):
        RunFolder.create(saved)


def test_overwrite_deletes_nothing_that_is_no_run(tmp_path: Path) -> None:
    config = configured(tmp_path, overwrite=True)
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not a run: use another --name"):
        RunFolder.create(config)
    assert (tmp_path / "first" / "thesis.txt").read_text() == "precious"


def test_a_link_is_not_followed_to_delete(tmp_path: Path) -> None:
    elsewhere = RunFolder.create(configured(tmp_path / "elsewhere"))
    (tmp_path / "first").symlink_to(elsewhere.path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name in ("first", "dangling"):
        with pytest.raises(ValueError, match=f"--name {name}: .* is not a run"):
            RunFolder.create(configured(tmp_path, name, overwrite=True))
    assert elsewhere.config.is_file()


def test_a_file_of_the_runs_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "first").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"--name first: .* is not a run"):
            RunFolder.create(configured(tmp_path, overwrite=overwrite))
    assert (tmp_path / "first").read_text() == "precious"


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("at", ["_write_file", "shutil.rmtree"])
def test_a_start_that_is_killed_leaves_a_name_that_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    if at == "shutil.rmtree":
        RunFolder.create(configured(tmp_path)).metrics_jsonl.write_text("of the run that is deleted")
    with monkeypatch.context() as patch:
        patch.setattr(f"inq_ray.files.folder.{at}", killed)
        with pytest.raises(KeyboardInterrupt):
            RunFolder.create(configured(tmp_path, overwrite=True))
    assert RunFolder.create(configured(tmp_path, overwrite=True)).config.is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    assert [path.name for path in (tmp_path / "first").iterdir()] == ["config.json"]


def test_what_another_run_is_making_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name may begin with this one's, and a dot."""
    with monkeypatch.context() as patch:
        patch.setattr("inq_ray.files.folder._write_file", killed)
        with pytest.raises(KeyboardInterrupt):
            RunFolder.create(configured(tmp_path, "first.b"))
    RunFolder.create(configured(tmp_path, "first"))
    assert len(list(tmp_path.glob(".first.b*"))) == 1


@pytest.mark.parametrize("below", ["file", "file/runs", "file/deep/runs"])
def test_a_storage_path_that_is_a_file_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    config = configured(tmp_path / below)
    for attempt in (
        lambda: RunFolder.create(config),
        lambda: RunFolder.planned(config).check_usable(),
    ):
        with pytest.raises(
            ValueError, match=f"--storage-path {tmp_path / below}: .*{tmp_path / 'file'} is not a folder"
        ):
            attempt()


def test_a_folder_that_cannot_be_written_to_is_named_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    with pytest.raises(ValueError, match=f"--storage-path {tmp_path / 'runs'}: {tmp_path} is not writable"):
        RunFolder.planned(configured(tmp_path / "runs")).check_usable()


def test_a_failing_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(ValueError, match=r"--storage-path .*cannot write there .*No space left") as caught:
        RunFolder.create(configured(tmp_path / "runs"))
    assert len(str(caught.value).splitlines()) == 1


def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--storage-path"):
        RunFolder.create(configured(tmp_path / ("x" * 300)))


def test_rows_are_lines_of_both_metrics_files(tmp_path: Path) -> None:
    folder = RunFolder.create(configured(tmp_path))
    rows = [ROW, Row(**{**vars(ROW), "epoch": 1, "lr": 0.1, "train_loss": 0.5})]
    for row in rows:
        folder.append(row)
    lines = [json.loads(line) for line in folder.metrics_jsonl.read_text().splitlines()]
    assert [Row(**line) for line in lines] == rows
    with folder.metrics_csv.open(newline="") as opened:
        table = list(csv.DictReader(opened))
    assert [list(entry) for entry in table] == [list(vars(ROW))] * 2
    assert (table[0]["top1"], table[0]["lr"], table[1]["lr"]) == ("90.0", "", "0.1")


def test_metrics_are_json_that_every_reader_takes(tmp_path: Path) -> None:
    folder = RunFolder.create(configured(tmp_path))
    folder.append(Row(**{**vars(ROW), "loss": float("inf")}))
    folder.write_summary({"loss": None})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(folder.metrics_jsonl.read_text(), parse_constant=refuse)["loss"] is None


def test_default_names_are_allowed_names() -> None:
    for config in (RunConfig(), RunConfig(plain=True)):
        config = config.replace(output={"name": default_name(config.network.arch, config.num_bits)})
        assert config.output.name is not None
        assert config.output.name.startswith("digits_cnn-float" if config.plain else "digits_cnn-5bit")


@pytest.mark.parametrize(
    ("arch", "start"),
    [
        ("timm/vit_tiny_patch16_224.augreg_in21k", "timm-vit_tiny_patch16_224.augreg_in21k-5bit-2"),
        ("package.module:function", "package.module-function-5bit-2"),
        ("_own.réseau:net", "own.r-seau-net-5bit-2"),
        ("", "5bit-2"),  # refused as a network, and not as a name
        ("x" * 300, "x" * 80 + "-5bit-2"),
    ],
)
def test_any_networks_name_makes_an_allowed_name(arch: str, start: str) -> None:
    config = RunConfig().replace(network={"arch": arch})
    name = default_name(config.network.arch, config.num_bits)
    assert config.replace(output={"name": name}).output.name == name
    assert name.startswith(start)


def test_what_killed_writers_have_left_is_removed_of_other_machines_too(tmp_path: Path) -> None:
    folder = RunFolder.create(configured(tmp_path))
    (folder.ray / "train").mkdir(parents=True)
    (folder.ray / "train" / ".validate_storage_marker").touch()
    for name in (".model.safetensors.gone-1-0.partial", f".summary.json.{os.uname().nodename}-{os.getpid()}-7.partial"):
        (folder.path / name).write_text("half")
    folder.clean()
    assert [path.name for path in folder.path.iterdir()] == ["config.json"]
