"""Handwritten digits from scikit-learn: 1,797 gray images of 8x8 (E. Alpaydin and C. Kaynak, UCI, CC BY 4.0)."""

import gzip
import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inq_ray.data.augment.crop_flip import CropFlip
from inq_ray.data.image_set import Samples, SourceInfo, Split
from inq_ray.data.memory_set import ImageSet
from inq_ray.data.order.epoch import holdout
from inq_ray.data.preprocessing import Augmentation
from inq_ray.files.extra import install_command

NUM_TEST = 500
_HIGHEST = 16
_SPLIT_SEED = 0


class DigitsSource:
    """The digits in a fixed split: 1,297 to train on, 500 to test on, drawn with a fixed seed.

    The file is ordered by writer: a split without drawing would test on writers that training never saw. Training crops
    by one pixel and does not flip by default, because a mirrored digit is not a digit.

    Args:
        augmentation: Augmentation for training.

    Attributes:
        info: Facts about the data; mean and std are those of the training images.
        notes: Empty.

    Raises:
        ValueError: scikit-learn is not installed.
    """

    notes = ()

    def __init__(self, augmentation: Augmentation | None = None) -> None:
        table = _read_table()
        images = torch.from_numpy(np.rint(table[:, :-1] * (255 / _HIGHEST)).astype(np.uint8)).view(-1, 1, 8, 8)
        labels = torch.from_numpy(table[:, -1].copy())
        train, test = holdout(len(labels), NUM_TEST, _SPLIT_SEED)
        parts: dict[Split, Tensor] = {"train": train, "test": test}
        scaled = images[train].double() / 255
        mean, std = (round(scaled.mean().item(), 6),), (round(scaled.std().item(), 6),)
        augmentation = augmentation or Augmentation()
        crop_flip = CropFlip.of(augmentation, images.shape[1:])
        self._sets = {
            split: ImageSet(images[part], labels[part], crop_flip, augmentation, mean) for split, part in parts.items()
        }
        self.info = SourceInfo(
            name="digits",
            num_classes=10,
            class_names=tuple("0123456789"),
            channels=1,
            height=8,
            width=8,
            num_train=len(train),
            num_test=len(test),
            mean=mean,
            std=std,
            fingerprint=hashlib.sha256(
                repr((table.shape, NUM_TEST, _SPLIT_SEED)).encode() + table.tobytes()
            ).hexdigest(),
        )

    def peek(self, split: Split) -> Samples:
        """Return the first image of "train" or "test"."""
        return self._sets[split].fetch(torch.arange(1), None)

    def split(self, split: Split) -> ImageSet:
        """Return the images of "train" or "test"; they take 115 kB, and every process holds its own copy."""
        return self._sets[split]


def _read_table() -> NDArray[np.int64]:
    """Return int64 [1797, 65]: pixels from 0 to 16 by rows, then the label.

    The file is read directly: importing scikit-learn takes 2 s per process, reading the file 10 ms.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        command = install_command("demo", "scikit-learn")
        raise ValueError(f"--data digits needs scikit-learn, which is not installed: {command}")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    table: NDArray[np.int64]
    if path.is_file():
        with gzip.open(path, "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    else:  # scikit-learn keeps the file elsewhere
        from sklearn.datasets import load_digits

        table = np.column_stack(load_digits(return_X_y=True)).astype(np.int64)
    return table
