"""Quantize a network of your own, on a folder of images of your own, to 5 bits; then load and use the result.

    python examples/own_network.py
    python examples/own_network.py --data my_images

`my_images` holds `train/CLASS/*.png` and `val/CLASS/*.png`. Without it, the script draws circles, squares and
triangles. The network is trained first. For one that is trained already, give `inq-ray quantize` its file by
`--weights` and leave out `--float-epochs`.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

import inq_ray as inq

SHAPES = ("circle", "square", "triangle")


class Net(nn.Module):
    """A small network for images of 32x32 pixels. `--arch own_network:Net` calls it with the number of classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveMaxPool2d(1),
        )  # fmt: skip
        self.classifier = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, num_classes] of images [N, 3, 32, 32]."""
        return self.classifier(self.features(images).flatten(1))


def draw_shapes(folder: Path, num_train: int, num_val: int, seed: int = 0) -> None:
    """Write PNGs of shapes as train/CLASS/*.png and val/CLASS/*.png."""
    random = np.random.default_rng(seed)
    for split, count in (("train", num_train), ("val", num_val)):
        for number in range(count):
            name = SHAPES[number % len(SHAPES)]
            image = Image.fromarray(random.integers(0, 80, (32, 32, 3), dtype=np.uint8))
            radius = random.uniform(5, 9)
            x, y = random.uniform(radius, 32 - radius, 2)
            color = tuple(random.integers(120, 256, 3).tolist())
            box = (x - radius, y - radius, x + radius, y + radius)
            if name == "triangle":
                ImageDraw.Draw(image).polygon([(x, y - radius), (box[0], box[3]), (box[2], box[3])], fill=color)
            else:
                draw = ImageDraw.Draw(image)
                (draw.ellipse if name == "circle" else draw.rectangle)(box, fill=color)
            path = folder / split / name / f"{number:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)


def main() -> None:
    """Draw images if there are none, quantize, load the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of train/CLASS/*.png and val/CLASS/*.png; default: made up")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder for the run; default: runs")
    flags = parser.parse_args()
    data = flags.data
    if data is None:
        data = flags.output / "shapes"
        if not data.exists():
            partial = data.with_name(".shapes")  # renamed once complete, so that an interruption leaves no part of it
            shutil.rmtree(partial, ignore_errors=True)
            draw_shapes(partial, num_train=900, num_val=150)
            partial.rename(data)

    words = [
        "--data", str(data.resolve()), "--arch", "own_network:Net", "--weight-bits", "5",
        "--mean", "0.5", "0.5", "0.5", "--std", "0.25", "0.25", "0.25",
        "--float-epochs", "5", "--float-lr", "0.05", "--epochs", "1", "--lr", "0.01", "--batch-size", "50",
        "--num-workers", "1", "--storage-path", str(flags.output.resolve()), "--name", "own_network", "--overwrite",
    ]  # fmt: skip
    print(shlex.join(["inq-ray", "quantize", *words]), flush=True)
    here = Path(__file__).resolve().parent  # --arch names a module of the working directory
    subprocess.run([sys.executable, "-m", "inq_ray", "quantize", *words], cwd=here, check=True)

    classes = sorted(path.name for path in (data / "train").iterdir())
    model = Net(num_classes=len(classes))
    inq.load(flags.output / "own_network" / "own_network.inq.safetensors", model)
    inq.verify(model)  # raises an error if a weight of a convolution or linear layer is neither 0 nor ±2^k
    model.eval()
    path = min((data / "val").rglob("*.png"))
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) / 255
    with torch.inference_mode():
        answer = model(((pixels - 0.5) / 0.25).unsqueeze(0)).argmax().item()
    print(f"{path.parent.name}/{path.name} is recognized as {classes[answer]}")


if __name__ == "__main__":
    main()
