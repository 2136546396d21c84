"""Handwritten digits as 8-bit numbers, and networks for them: trained, then quantized without further training."""

import copy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import inq_ray as inq

NUM_TRAIN = 1297  # the last 500 images are by other writers
FRACTION = 6  # bits of a pixel below the point: pixels are whole multiples of 2^-6 from -1 to 1, in 8 bits


def images() -> tuple[Tensor, Tensor]:
    """Return float32 [1797, 1, 8, 8] and the classes, int64."""
    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 8 - 1, torch.tensor(data.target)


def trained(network: nn.Module) -> nn.Module:
    """Return the network after 60 steps on the first 1,297 images; it is the same on each run."""
    torch.manual_seed(0)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    inputs, labels = images()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs[:NUM_TRAIN]), labels[:NUM_TRAIN]).backward()
        optimizer.step()
    return network.eval()


def quantized(network: nn.Module, weight_bits: int) -> tuple[nn.Module, dict[str, int]]:
    """Return a copy with powers of two, and the smallest exponent n_2 of each weight by name."""
    network = copy.deepcopy(network)
    done = inq.quantize_(network, images()[0][:512], weight_bits)
    inq.verify(network)
    return network, {name: state.codebook.n_2 for name, state in done.state.items()}


def accuracy(network: nn.Module) -> float:
    """Return top-1 in % of the last 500 images."""
    inputs, labels = (each[NUM_TRAIN:] for each in images())
    with torch.no_grad():
        return 100 * float((network(inputs).argmax(1) == labels).float().mean())


def run_in_folder(main: Callable[[Path], None]) -> None:
    """Run an example with the folder that the command names, or with a temporary one."""
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
