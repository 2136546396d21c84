"""Data that are damaged or changed while a run trains on them, or before it goes on: one line, and the same bits after.

What is damaged is mended by putting back what was there; a run that goes on then ends as one that was never disturbed.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from inq_ray.training.checkpoint.resume import Resume
from inq_ray.training.config import RunConfig
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.start import look
from inq_ray.training.task.build import open_data
from tests.data.parquet_files import write_parquet
from tests.data.pictures import encode, photo
from tests.training.runs import read_summary, tiny_config
from tests.training.test_storage_faults import run_with, stopped_at

pytestmark = pytest.mark.system

CLASSES = ("cat", "dog", "frog")
KINDS = ("folder", "parquet")
# What a fault is done to, from the folder of the data.
VICTIM = {"folder": "train/dog/3.jpg", "parquet": "train-00001-of-00002.parquet"}


def tiny(num_classes: int) -> nn.Module:
    """A network for these images."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, num_classes)
    )


def write_folder(root: Path) -> None:
    for split, num in (("train", 8), ("val", 2)):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(num):
                image = photo(36 + number, 30, seed=100 * label + number)
                (root / split / name / f"{number}.jpg").write_bytes(encode(image, "JPEG"))


def write_shards(root: Path) -> None:
    """Of images of several sizes, which are read while training."""
    root.mkdir()
    for number, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001")):
        blobs = [encode(photo(36 + image, 30, seed=100 * number + image), "JPEG") for image in range(12)]
        labels = [image % 3 for image in range(12)]
        write_parquet(root / f"{name}.parquet", blobs, labels, classes=CLASSES, write_page_checksum=True)


def configured(storage: Path, data: Path) -> RunConfig:
    """Four steps an epoch, a checkpoint after each."""
    config = tiny_config(
        storage,
        "run",
        data={"data": str(data), "crop_size": 16, "resize_size": 18, "loader_workers": 0, "shuffle_buffer": 6},
        network={"arch": "tests.training.test_data_faults:tiny"},
        training={"batch_size": 6, "float_epochs": 1, "epochs": 1},
    )
    return config.replace(output={"checkpoint_every": "1"})


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def calm(kind: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Data, and the digest of a run on them that nothing has happened to."""
    folder = tmp_path_factory.mktemp(kind)
    (write_folder if kind == "folder" else write_shards)(folder / "data")
    return folder / "data", run_with(configured(folder / "runs", folder / "data"), {}).digest


@pytest.fixture
def config(calm: tuple[Path, str], tmp_path: Path) -> RunConfig:
    """A run on a copy of the data."""
    shutil.copytree(calm[0], tmp_path / "data")
    return configured(tmp_path / "runs", tmp_path / "data")


def flip(path: Path) -> None:
    """One bit, in the middle of a page's data: of a shard's headers, much is read by nobody."""
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "garbage": lambda path: path.write_bytes(b"no image " * 100),
    "flipped": flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "missing": Path.unlink,
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


def put_back(calm: tuple[Path, str], config: RunConfig, kind: str) -> None:
    victim = Path(config.data.data) / VICTIM[kind]
    if victim.is_dir():
        victim.rmdir()
    # By renaming: a folder whose files are written over in place looks as it was, and is not listed again.
    beside = victim.with_name(".beside")
    shutil.copy2(calm[0] / VICTIM[kind], beside)
    beside.replace(victim)


def goes_on(config: RunConfig) -> str:
    """Starts again, and returns the digest of the end."""
    decision = look(config, fingerprint=open_data(config).info.fingerprint)
    assert isinstance(decision, Resume)
    told = run_with(config, {})
    assert any(line.startswith("continuing from ") for line in told.lines)
    return told.digest


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_while_it_is_read(calm: tuple[Path, str], config: RunConfig, kind: str, damage: str) -> None:
    if (kind, damage) == ("folder", "flipped"):
        pytest.skip("most of a JPEG's bytes may be others, and it is an image still")
    victim = Path(config.data.data) / VICTIM[kind]
    with pytest.raises(ValueError, match=victim.name) as error:
        run_with(config, {(1, 1, 2): lambda: DAMAGE[damage](victim) and None})
    assert "\n" not in str(error.value)
    put_back(calm, config, kind)
    assert goes_on(config) == calm[1]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_before_it_goes_on(calm: tuple[Path, str], config: RunConfig, kind: str, damage: str) -> None:
    """Refused before anything is read where that can be told, else as soon as the file is read."""
    if (kind, damage) == ("folder", "flipped"):
        pytest.skip("most of a JPEG's bytes may be others, and it is an image still")
    folder = stopped_at(config, (1, 1, 2))
    newest = max((folder / "checkpoints").iterdir()).name
    DAMAGE[damage](Path(config.data.data) / VICTIM[kind])
    with pytest.raises(ValueError, match=r"train|was made with --data") as error:
        goes_on(config)
    assert "\n" not in str(error.value)
    assert max((folder / "checkpoints").iterdir()).name >= newest  # nothing is lost, and some may be met on the way
    put_back(calm, config, kind)
    assert goes_on(config) == calm[1]


def add_image(data: Path) -> None:
    (data / "train" / "cat" / "9.jpg").write_bytes((data / "train" / "cat" / "0.jpg").read_bytes())


def replace_shard(data: Path) -> None:
    blobs = [encode(photo(36 + image, 30, seed=900 + image), "JPEG") for image in range(12)]
    write_parquet(data / VICTIM["parquet"], blobs, [image % 3 for image in range(12)], classes=CLASSES)


def test_other_data_than_it_began_with_are_refused(calm: tuple[Path, str], config: RunConfig, kind: str) -> None:
    stopped_at(config, (1, 1, 2))
    data = Path(config.data.data)
    (add_image if kind == "folder" else replace_shard)(data)
    with pytest.raises(ValueError, match=r"was made with --data .* as it was \(now .* as it is\)"):
        goes_on(config)
    (data / "train" / "cat" / "9.jpg").unlink(missing_ok=True)
    put_back(calm, config, kind)
    assert goes_on(config) == calm[1]


def test_a_shard_that_is_replaced_while_it_is_read(calm: tuple[Path, str], config: RunConfig, kind: str) -> None:
    if kind == "folder":
        pytest.skip("an image that is replaced by another is not noticed before the folder is listed again")
    with pytest.raises(
        ValueError, match="changed after it was opened: start again, and do not change the data meanwhile"
    ):
        run_with(config, {(1, 1, 2): lambda: replace_shard(Path(config.data.data))})
    put_back(calm, config, kind)
    assert goes_on(config) == calm[1]


def test_images_that_may_be_left_out_end_nothing(calm: tuple[Path, str], config: RunConfig, kind: str) -> None:
    if kind == "parquet":
        pytest.skip("in a damaged shard no image can be told from another")
    config = config.replace(data={"skip_bad_images": 1})
    victim = Path(config.data.data) / VICTIM[kind]
    told: Any = run_with(config, {(1, 1, 2): lambda: os.truncate(victim, 0)})
    assert len(told.digest) == 64
    assert read_summary(RunFolder.planned(config))["bad_images"] == {str(victim): "the file is empty"}
