"""What the job refuses, and what it plans: all without Ray, in this process."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from inq_ray.models.registry import create
from inq_ray.training.evaluation.accuracy import Accuracy
from tests.data.parquet_files import encode, random_images, write_dataset, write_parquet

ray = pytest.importorskip("ray", reason="the job runs on Ray")

from inq_ray.cli import quantize as quantize_imagenet  # noqa: E402, it imports Ray
from inq_ray.cluster.failure import RunRefusedError  # noqa: E402

pytestmark = pytest.mark.system

Job = Callable[..., tuple[int, str, str]]


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Job:
    """Runs the job in an empty folder; gives exit status, stdout and stderr. Ray must not start."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # other tests of this process may have a cluster

    def run(*flags: str) -> tuple[int, str, str]:
        status = quantize_imagenet.main(list(flags), "quantize_imagenet")
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad data and weights."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("good", "truncated", "labels", "no-test", "only-test", "empty", "column"):
        (folder / name).mkdir()
    for name in ("good", "truncated", "labels", "column"):
        write_dataset(folder / name)
    shard = folder / "truncated" / "train-00001-of-00002.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    blobs = [encode(image) for image in random_images(3)]
    write_parquet(folder / "labels" / "train-00000-of-00002.parquet", blobs, [0, 3, 1])
    write_parquet(folder / "column" / "train-00000-of-00002.parquet", blobs, [0, 1, 2], column="pixels")
    write_parquet(folder / "no-test" / "train-0.parquet", blobs, [0, 1, 2])
    write_parquet(folder / "only-test" / "test-0.parquet", blobs, [0, 1, 2])
    torch.manual_seed(0)
    save_file(create("digits_cnn", num_classes=10, in_channels=1).state_dict(), folder / "digits.safetensors")
    save_file(create("cifar_resnet20", num_classes=10).state_dict(), folder / "resnet20-10.safetensors")
    torch.save({"state_dict": {"a.weight": torch.ones(1)}}, folder / "other.pth")
    (folder / "text.safetensors").write_text("this is no safetensors file, but long enough to be read as one")
    (folder / "config.json").write_text('{"training": {"epoch": 3}}')
    (folder / "file").write_text("")
    return folder


def test_a_wait_that_ends_is_one_line(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(*_: Any, **__: Any) -> Any:
        raise TimeoutError("another process has been downloading for an hour")

    monkeypatch.setattr(quantize_imagenet, "check", waits)
    assert job("--dry-run") == (2, "", "quantize_imagenet: another process has been downloading for an hour\n")


# Flags ({} is the folder of files), and what the line has to say.
BAD = [
    ("--batchsize 64", ["--batchsize", "--batch-size"]),
    ("--lr fast", ["--lr", "'fast'"]),
    ("--strategy best", ["'best'", "--strategy", "pruning", "random"]),
    ("--weight-bits 9", ["--weight-bits", "2 to 8", "got 9"]),
    ("--iterative-steps 0.5 0.75", ["--iterative-steps", "0.5 0.75", "end at 1.0"]),
    ("--recipe resnet18-3", ["--recipe resnet18-3", "resnet18-3bit"]),
    ("--config {}/nowhere.json", ["--config {}/nowhere.json", "No such file"]),
    ("--config {}/config.json", ["--config {}/config.json", "training.epoch", "training.epochs"]),
    ("--data {}/nowhere --plain", ["{}/nowhere"]),
    ("--data {}/empty --plain", ["{}/empty", "parquet", "train/CLASS"]),
    ("--data {}/truncated --float-epochs 1", ["{}/truncated/train-00001-of-00002.parquet"]),
    ("--data {}/labels --float-epochs 1", ["{}/labels/train-00000-of-00002.parquet", "3"]),
    ("--data {}/column --float-epochs 1", ["{}/column/train-00000-of-00002.parquet", "image", "pixels"]),
    ("--data {}/no-test --plain", ["{}/no-test", "test-*.parquet", "--holdout"]),
    ("--data {}/only-test --arch cifar_resnet20 --float-epochs 1", ["{}/only-test", "train-*.parquet", "--evaluate"]),
    ("--data ftp://server/cifar --plain", ["ftp://server/cifar", "s3://"]),
    ("--data ~nobody-of-this-name/x", ["--data ~nobody-of-this-name/x"]),
    ("--arch resnet19", ["resnet19", "resnet18"]),
    ("--data {}/good --arch cifar_resnet20", ["--weights", "--float-epochs", "--plain"]),
    ("--weights {}/nowhere.safetensors", ["{}/nowhere.safetensors", "no such file"]),
    ("--weights {}/text.safetensors", ["{}/text.safetensors", "safetensors"]),
    ("--weights {}/other.pth", ["{}/other.pth", "does not fit", "missing", "unexpected (a.weight)"]),
    (
        "--data {}/good --arch cifar_resnet20 -b 4 --weights {}/resnet20-10.safetensors",
        ["{}/resnet20-10.safetensors", "does not fit", "[10, 64] for [3, 64]"],
    ),
    ("--arch alexnet --float-epochs 1", ["--arch alexnet", "[1, 8, 8]", "digits"]),
    ("--skip clasifier", ["'clasifier'", "classifier"]),
    ("--skip *", ["nothing to quantize"]),
    ("--crop-size 64", ["--crop-size", "digits", "8x8"]),
    ("--interpolation bicubic --evaluate --weights {}/other.pth", ["--interpolation", "8x8"]),
    ("--resize-size 5000", ["--resize-size", "4096", "got 5000"]),
    ("--holdout 1297", ["--holdout 1297", "1297 training images"]),
    ("--batch-size 2000", ["--batch-size 2000", "1297"]),
    ("--batch-size 1298", ["--batch-size 1298", "at most 1297"]),
    ("--holdout 1000 --batch-size 298", ["--batch-size 298", "at most 297"]),
    ("--batch-size 1", ["--batch-size 1", "2 workers", "at least 2"]),
    ("--num-workers 5000 --batch-size 5000", ["--num-workers 5000", "this machine has"]),
    ("--cpus-per-worker 5000", ["--cpus-per-worker 5000", "this machine has"]),
    ("--precision fp16", ["--precision fp16", "--use-gpu"]),
    ("--name ../elsewhere", ["--name", "'../elsewhere'"]),
    ("--storage-path s3://bucket/runs", ["--storage-path", "s3://bucket/runs"]),
    ("--storage-path {}/file", ["--storage-path {}/file", "not a folder"]),
    ("--evaluate", ["--evaluate", "--weights"]),
    ("--evaluate --weights {}/nowhere.safetensors", ["{}/nowhere.safetensors"]),
    ("--evaluate --dry-run", ["--evaluate", "--weights"]),
    ("--plain --float-epochs 2", ["--plain", "--float-epochs"]),
    ("--plain --epochs 0", ["--plain", "--epochs"]),
]


@pytest.mark.parametrize("more", [[], pytest.param(["--dry-run"], marks=pytest.mark.long)], ids=["run", "dry-run"])
@pytest.mark.parametrize(("flags", "says"), BAD, ids=[flags for flags, _ in BAD])
def test_bad_input_is_one_line_before_ray_starts(
    flags: str, says: list[str], more: list[str], job: Job, files: Path
) -> None:
    before = sorted(files.rglob("*"))
    status, out, err = job(*flags.replace("{}", str(files)).split(), *more)
    assert (status, out) == (2, ""), err
    assert len(err.splitlines()) == 1
    assert err.startswith("quantize_imagenet: ")
    assert "Traceback" not in err
    if "--evaluate" not in flags or not more:
        for part in says:
            assert part.replace("{}", str(files)) in err
    assert list(Path().iterdir()) == []
    assert sorted(files.rglob("*")) == before


def test_a_gpu_that_is_not_there_is_said(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    status, out, err = job("--use-gpu")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "--use-gpu: this machine has no GPU" in err


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_run_that_exists_is_left_alone(more: list[str], job: Job) -> None:
    folder = Path("runs", "mine")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("precious")
    status, out, err = job("--name", "mine", *more)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "run mine was made with --epochs 4 (now 3)" in err
    assert "another --name" in err
    assert "--overwrite" in err
    assert (folder / "model.safetensors").read_text() == "precious"


def test_a_dry_run_prints_the_plan_and_writes_nothing(job: Job) -> None:
    status, out, err = job("--dry-run")
    assert (status, err) == (0, "")
    assert "digits_cnn" in out
    assert "1,297 training images" in out
    assert "25,744 of 25,978 parameters" in out
    rows = [[cell.strip() for cell in line.strip("│|").split("│")] for line in out.splitlines() if "│" in line]
    assert ["classifier.weight", "Linear", "10x256", "2,560", "5"] in rows
    assert ["classifier.bias", "Linear", "10", "10", "float (bias)"] in rows
    assert rows[-5:] == [
        ["float", "0", "0", "12", "0.1", "240"],
        ["1/4", "0.5", "12,872", "3", "0.02", "60"],
        ["2/4", "0.75", "19,308", "3", "0.02", "60"],
        ["3/4", "0.875", "22,526", "3", "0.02", "60"],
        ["4/4", "1", "25,744", "3", "0.02", "60"],
    ]
    assert "of training, estimated from one step on this machine" in out
    assert out.rstrip().endswith("dry run: nothing was started, no run was written")
    assert list(Path().iterdir()) == []


def test_a_run_without_a_name_prints_the_one_with_which_it_continues(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str | None] = []
    monkeypatch.setattr(quantize_imagenet, "run", lambda config, *_, **__: names.append(config.output.name) or 0)
    status, out, err = job()
    assert (status, err) == (0, "")
    assert f"repeat the command with --name {names[0]}" in " ".join(out.split())
    assert "--name" not in job("--name", "mine")[1]
    assert "--name" not in job("--dry-run")[1]


def test_a_dry_run_with_overwrite_deletes_nothing(job: Job) -> None:
    folder = Path("runs", "mine")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    status, _, err = job("--name", "mine", "--overwrite", "--dry-run")
    assert (status, err) == (0, "")
    assert (folder / "config.json").is_file()


def test_a_dry_run_of_own_images_and_weights(job: Job, files: Path) -> None:
    flags = [
        "--data",
        f"{files}/good",
        "--arch",
        "cifar_resnet20",
        "--float-epochs",
        "2",
        "-b",
        "6",
        "--weight-bits",
        "3",
    ]
    status, out, err = job(*flags, "--dry-run")
    assert (status, err) == (0, "")
    assert "20 training images, accuracy measured on 7" in out
    assert "8/8" in out


@pytest.mark.parametrize(("hits", "status"), [(480, 0), (50, 2), (1, 2)])
def test_a_dry_run_measures_the_float_network_if_asked(
    hits: int, status: int, job: Job, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Accuracy(num_samples=500, num_top1=hits, num_top5=500, loss=1.0)
    monkeypatch.setattr(quantize_imagenet, "evaluate", lambda *_, **__: found)
    flags = ["--weights", f"{files}/digits.safetensors", "--dry-run", "--evaluate"]
    got, out, err = job(*flags)
    assert got == status
    assert "tensors" in out
    assert f"float top-1 {hits / 5:.2f} %, top-5 100.00 % of 500 images" in out
    if status:
        assert len(err.splitlines()) == 1
        assert err.startswith("quantize_imagenet: float top-1 is")
        assert "--accept-float-accuracy" in err
        got, out, err = job(*flags, "--accept-float-accuracy")
        assert (got, err) == (0, "")
        assert "warning: float top-1 is" in out
    assert out.rstrip().endswith("dry run: only the float network was measured, no run was written")


def test_an_evaluation_near_chance_is_warned_about(job: Job, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Accuracy(num_samples=500, num_top1=40, num_top5=250, loss=1.0)
    monkeypatch.setattr(quantize_imagenet, "evaluate", lambda *_, **__: found)
    status, out, err = job("--weights", f"{files}/digits.safetensors", "--evaluate")
    assert (status, out) == (0, "top-1 8.00 %, top-5 50.00 % of 500 images\n")
    assert "warning: float top-1 is 8.00 % on 500 images, near chance" in err


def test_weights_that_workers_refuse_have_the_status_of_a_start_that_is_refused(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RunRefusedError("float top-1 is 8.00 %")

    monkeypatch.setattr(quantize_imagenet, "execute", refuse)
    assert job() == (2, "", "quantize_imagenet: float top-1 is 8.00 %\n")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_ends_with_0(flag: str, job: Job) -> None:
    with pytest.raises(SystemExit) as stopped:
        job(flag)
    assert not stopped.value.code


def test_interrupting_is_not_a_traceback(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(quantize_imagenet, "execute", interrupt)
    assert job() == (130, "", "quantize_imagenet: interrupted\n")


def test_sigterm_where_only_ray_listens_has_a_line_and_its_status(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize_imagenet, "execute", lambda *_: sys.exit(signal.SIGTERM))
    assert job() == (143, "", "quantize_imagenet: ended by SIGTERM\n")
    monkeypatch.setattr(quantize_imagenet, "execute", lambda *_: sys.exit(0))
    with pytest.raises(SystemExit):
        job()


SCALED = """
import torch
from torch import nn

class Scaled(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.layer = nn.Linear(8 * 8 * in_channels, num_classes)

    def forward(self, x):
        return nn.functional.linear(x.flatten(1), self.layer.weight * 0.3, self.layer.bias)

class Recurrent(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.lstm, self.head = nn.LSTM(8 * in_channels, 32, batch_first=True), nn.Linear(32, num_classes)

    def forward(self, x):
        return self.head(self.lstm(x.flatten(1, 2))[0][:, -1])
"""


def test_a_network_that_changes_its_weights_in_forward_is_refused(job: Job) -> None:
    Path("own.py").write_text(SCALED)
    status, _, err = job("--arch", "own:Scaled", "--float-epochs", "1", "--dry-run")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "layer.weight is changed in forward" in err
    assert "--skip layer.weight" in err


def test_a_large_part_that_stays_float_is_said_and_included_on_request(job: Job) -> None:
    Path("own.py").write_text(SCALED)
    flags = ["--arch", "own:Recurrent", "--float-epochs", "1", "--dry-run"]
    status, out, _ = job(*flags)
    assert status == 0
    assert "only 5.9 % of 5,440 weights are quantized" in " ".join(out.split())
    assert "--include PATTERN" in " ".join(out.split())
    status, out, _ = job(*flags, "--include", "lstm")
    assert status == 0
    assert "weights are quantized" not in out
    assert "5,440 of 5,706 parameters (95.3 %)" in " ".join(out.split())
