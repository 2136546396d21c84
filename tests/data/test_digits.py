"""Digits: the file that scikit-learn ships, without importing it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from inq_ray.data import digits
from inq_ray.data.memory_set import ImageSet
from inq_ray.data.source import open_source

pytestmark = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")


def test_facts() -> None:
    source = open_source("digits")
    info = source.info
    assert (info.name, info.num_classes, info.num_train, info.num_test) == ("digits", 10, 1297, 500)
    assert (info.channels, info.height, info.width) == (1, 8, 8)
    train, test = source.split("train"), source.split("test")
    assert isinstance(train, ImageSet)
    assert isinstance(test, ImageSet)
    assert (train.crop_flip.padding, train.crop_flip.flip) == (1, False)
    assert (train.images.shape, test.images.shape) == ((1297, 1, 8, 8), (500, 1, 8, 8))
    assert (train.images.dtype, train.labels.dtype) == (torch.uint8, torch.int64)
    assert int(train.images.max()) == 255
    normalized = (train.images.double() / 255 - info.mean[0]) / info.std[0]
    assert abs(normalized.mean().item()) < 1e-5
    assert abs(normalized.std().item() - 1) < 1e-5
    assert min(torch.bincount(test.labels).tolist()) > 30
    assert open_source("digits").info == info


def test_every_image_once_and_as_scikit_learn_has_it() -> None:
    from sklearn.datasets import load_digits

    ours = [digits.DigitsSource().split(split) for split in ("train", "test")]
    images = torch.cat([part.images for part in ours]).flatten(1).numpy() * (16 / 255)
    table = np.column_stack([np.rint(images), torch.cat([part.labels for part in ours]).numpy()])
    theirs = np.column_stack(load_digits(return_X_y=True))
    assert sorted(map(tuple, table.tolist())) == sorted(map(tuple, theirs.tolist()))


def test_another_place_of_the_file_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digits._read_table()
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    assert np.array_equal(digits._read_table(), expected)


def test_without_scikit_learn_the_error_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"not installed: pip install .*(demo|scikit-learn)"):
        open_source("digits")


@pytest.mark.system
def test_imports_stay_cheap(repo: Path) -> None:
    """Digits import no scikit-learn; the packages alone no torchvision, no pyarrow and no Pillow."""
    code = (
        "import sys, inq_ray.data.source, inq_ray.models.registry\n"
        "print(sorted({'torchvision', 'pyarrow', 'PIL', 'sklearn'} & set(sys.modules)))\n"
        "inq_ray.data.source.open_source('digits')\n"
        "inq_ray.models.registry.create('digits_cnn', num_classes=10)\n"
        "print(sorted({'torchvision', 'pyarrow', 'PIL', 'sklearn'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["[]", "[]"]
