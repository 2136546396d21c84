"""Images as the network is given them: bit for bit torchvision's, on Pillow in validation, on tensors in training."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, functional, v2
from torchvision.transforms._presets import ImageClassification

from inq_ray.data.augment.auto_augment import augment_image
from inq_ray.data.augment.image_transform import ImageTransform
from inq_ray.data.augment.random_resized_crop import draw_crop
from inq_ray.data.decode import turbojpeg
from inq_ray.data.preprocessing import Augmentation, Preprocessing
from tests.data.pictures import decode, encode, photo, sample_files

JPEG = encode(photo(300, 200), "JPEG", quality=90)
PRESETS = {
    "resnet": Preprocessing(),
    "resnet, second weights": Preprocessing(resize_size=232),
    "inception": Preprocessing(resize_size=342, crop_size=299),
    "vision transformer": Preprocessing(resize_size=248, crop_size=224, interpolation="bicubic"),
}
ODD_PRESETS = {
    "resnet": Preprocessing(),
    "bicubic": PRESETS["vision transformer"],
    "crop larger than the image": Preprocessing(resize_size=100, crop_size=131),
    "nearest": Preprocessing(interpolation="nearest"),
}


def by_torchvision(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """What the transform of torchvision's weights makes of Pillow's image, before it normalizes."""
    mode = InterpolationMode(preprocessing.interpolation)
    image = functional.resize(image, [preprocessing.resize_size], interpolation=mode, antialias=True)
    return functional.pil_to_tensor(functional.center_crop(image, [preprocessing.crop_size]))


def check_validation(data: bytes, preprocessing: Preprocessing) -> None:
    image = ImageTransform(preprocessing, Augmentation()).evaluate(data)
    assert image.dtype == torch.uint8
    assert torch.equal(image, by_torchvision(Image.fromarray(decode(data)), preprocessing))


@pytest.mark.system
@pytest.mark.parametrize(
    "name", ["resnet", *(pytest.param(name, marks=pytest.mark.long) for name in PRESETS if name != "resnet")]
)
def test_validation_has_the_bits_of_torchvision(name: str, shared_data: Path) -> None:
    for data in sample_files(shared_data):
        check_validation(data, PRESETS[name])


@pytest.mark.parametrize("name", PRESETS)
def test_that_is_what_torchvisions_weights_do(name: str) -> None:
    preprocessing, image = PRESETS[name], photo(300, 200)
    stated = ImageClassification(
        crop_size=preprocessing.crop_size,
        resize_size=preprocessing.resize_size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        interpolation=InterpolationMode(preprocessing.interpolation),
    )
    pixels = by_torchvision(image, preprocessing)
    normalized = functional.normalize(pixels / 255, list(preprocessing.mean), list(preprocessing.std))
    assert torch.equal(stated(image), normalized)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (223, 225), (90, 60)])
@pytest.mark.parametrize("name", ODD_PRESETS)
def test_validation_of_small_and_long_images(name: str, size: tuple[int, int]) -> None:
    check_validation(encode(photo(*size), "PNG"), ODD_PRESETS[name])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_training_has_the_bits_of_torchvision_on_tensors(interpolation: Any, shared_data: Path) -> None:
    preprocessing = Preprocessing(train_crop_size=176, interpolation=interpolation)
    transform = ImageTransform(preprocessing, Augmentation())
    for sample, data in enumerate(sample_files(shared_data)[::3]):
        image = torch.from_numpy(decode(data).copy()).permute(2, 0, 1)
        box, mirrored = draw_crop(image.shape[1], image.shape[2], transform.augmentation, sample, 1, 2)
        if min(box.height, box.width) >= 2 * 176:
            continue
        expected = v2.functional.resized_crop(image, *box, [176, 176], InterpolationMode(interpolation), antialias=True)
        trained = transform.train(data, sample, 1, 2)
        assert torch.equal(trained, expected.flip(2) if mirrored else expected)


def test_large_jpegs_are_decoded_small() -> None:
    """Half the size by fewer frequencies, then the rest by interpolation: as good as all by interpolation."""
    image = photo(1100, 900).resize((2200, 1800), Image.Resampling.BICUBIC)
    transform = ImageTransform(Preprocessing(train_crop_size=64), Augmentation(scale=(0.5, 1.0)))
    for data in (encode(image, "JPEG", quality=95), encode(image.convert("L"), "JPEG", quality=95)):
        pixels = torch.from_numpy(decode(data).copy()).permute(2, 0, 1)
        for sample in range(5):
            box, mirrored = draw_crop(1800, 2200, transform.augmentation, sample, 0, 0)
            assert min(box.height, box.width) >= 8 * 64
            expected = v2.functional.resized_crop(pixels, *box, [64, 64], InterpolationMode.BILINEAR, antialias=True)
            expected = expected.flip(2) if mirrored else expected
            difference = (transform.train(data, sample, 0, 0).float() - expected.float()).abs()
            assert difference.mean() < 2


@pytest.mark.parametrize("kind", ["small", "large"])
def test_bits_do_not_depend_on_the_decoder(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes with libjpeg-turbo and without make the same batches."""
    data = JPEG if kind == "small" else encode(photo(1000, 1200), "JPEG")
    transform = ImageTransform(Preprocessing(train_crop_size=96), Augmentation())
    assert turbojpeg.library() is not None
    images = [transform.train(data, sample, 0, 0) for sample in range(8)]
    middle = transform.evaluate(data)
    monkeypatch.setattr(turbojpeg, "library", lambda: None)
    for sample, image in enumerate(images):
        assert torch.equal(transform.train(data, sample, 0, 0), image)
    assert torch.equal(transform.evaluate(data), middle)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_shapes_and_strides(kind: str) -> None:
    transform = ImageTransform(Preprocessing(crop_size=50, resize_size=60, train_crop_size=40), Augmentation())
    data = encode(photo(300, 200), kind)
    assert transform.evaluate(data).shape == (3, 50, 50)
    assert transform.evaluate(data).stride() == (1, 150, 3)
    for sample in range(6):
        image = transform.train(data, sample, 0, 0)
        assert image.shape == (3, 40, 40)
        assert image.stride() == (1, 120, 3)
    assert ImageTransform(Preprocessing(interpolation="nearest"), Augmentation()).train(data, 0, 0, 0).stride() == (
        1,
        672,
        3,
    )


@pytest.mark.parametrize(
    "augmentation", [Augmentation(), Augmentation(auto_augment="trivialaugment", random_erasing=0.5)]
)
def test_training_is_a_function_of_seed_epoch_and_sample(augmentation: Augmentation) -> None:
    transform = ImageTransform(Preprocessing(train_crop_size=64), augmentation)
    first = transform.train(JPEG, 5, 1, 2)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    assert torch.equal(transform.train(JPEG, 5, 1, 2), first)
    assert torch.equal(torch.get_rng_state(), state)
    for key in ((6, 1, 2), (5, 2, 2), (5, 1, 3)):
        assert not torch.equal(transform.train(JPEG, *key), first)


def test_augmentation_comes_after_crop_and_flip() -> None:
    preprocessing, augmentation = (
        Preprocessing(train_crop_size=64),
        Augmentation(auto_augment="randaugment", random_erasing=0.5),
    )
    for sample in range(10):
        plain = ImageTransform(preprocessing, Augmentation()).train(JPEG, sample, 0, 0)
        expected = augment_image(plain, augmentation, preprocessing.mean, sample, 0, 0)
        assert torch.equal(ImageTransform(preprocessing, augmentation).train(JPEG, sample, 0, 0), expected)


def test_it_can_be_sent_to_other_processes() -> None:
    transform = ImageTransform(Preprocessing(train_crop_size=64), Augmentation(auto_augment="augmix"))
    received = pickle.loads(pickle.dumps(transform))  # noqa: S301, our own
    assert received == transform
    assert torch.equal(received.train(JPEG, 3, 1, 4), transform.train(JPEG, 3, 1, 4))


@pytest.mark.parametrize("data", [b"", b"text", JPEG[:2000], JPEG[:-2]])
def test_broken_files_are_broken_in_training_and_validation(data: bytes) -> None:
    transform = ImageTransform(Preprocessing(), Augmentation())
    for sample in range(5):
        with pytest.raises(ValueError, match=r"empty|not an image|truncated"):
            transform.train(data, sample, 0, 0)
    with pytest.raises(ValueError, match=r"empty|not an image|truncated"):
        transform.evaluate(data)


def test_an_image_whose_resized_form_would_fill_the_memory() -> None:
    data = encode(Image.new("L", (3000, 1)), "PNG")
    with pytest.raises(ValueError, match="3000x1 pixels, too long"):
        ImageTransform(Preprocessing(), Augmentation()).evaluate(data)
    assert ImageTransform(Preprocessing(), Augmentation()).train(data, 0, 0, 0).shape == (3, 224, 224)
