"""Quantize in a training loop of your own under Ray Train: two workers, DDP, 4 bits.

    python examples/ray_train_loop.py

Every worker calls `INQScheduler.step`: each decides about a part of the tensors, all apply it, and all must then hold
the same bits. The data are points of five classes, so that the loop is all there is to read.
"""

import argparse
import tempfile
from pathlib import Path

import ray.train
import torch
from ray.train.torch import TorchTrainer, prepare_data_loader, prepare_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import inq_ray as inq

PORTIONS = [0.5, 0.75, 0.875, 1.0]
NUM_CLASSES = 5
FILE = "points.inq.safetensors"


def points(count: int, seed: int) -> TensorDataset:
    """Return points float32 [count, 16] around one center for each class, and their classes int64 [count]."""
    centers = torch.randn(NUM_CLASSES, 16, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
    return TensorDataset(centers[labels] + torch.randn(count, 16, generator=generator), labels)


def train_epochs(model: nn.Module, optimizer: inq.SGD, loader: DataLoader[tuple[Tensor, ...]], epochs: range) -> None:
    """Train as ever: the optimizer moves live weights only."""
    for epoch in epochs:
        if ray.train.get_context().get_world_size() > 1:
            loader.sampler.set_epoch(epoch)
        for inputs, labels in loader:
            optimizer.zero_grad()
            cross_entropy(model(inputs), labels).backward()
            optimizer.step()


@torch.inference_mode()
def accuracy(model: nn.Module) -> float:
    """Return the share of points that are recognized, in %."""
    device = next(model.parameters()).device
    inputs, labels = (tensor.to(device) for tensor in points(1000, seed=2).tensors)
    return 100 * (model(inputs).argmax(1) == labels).double().mean().item()


def network() -> nn.Module:
    """Return the network, not trained."""
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, NUM_CLASSES))


def train(config: dict[str, float]) -> None:
    """Train in float, then quantize in stages; on every worker."""
    torch.manual_seed(0)
    model = prepare_model(network())
    loader = prepare_data_loader(DataLoader(points(4000, seed=1), batch_size=50, shuffle=True))
    optimizer = inq.SGD(inq.param_groups(model, weight_bits=4), lr=config["lr"], momentum=0.9)
    train_epochs(model, optimizer, loader, range(3))
    ray.train.report({"portion": 0.0, "top1": accuracy(model)})

    inq_scheduler = inq.INQScheduler(optimizer, PORTIONS)
    for epoch, portion in enumerate(PORTIONS, start=3):
        inq_scheduler.step()  # freeze the next portion as powers of two
        # After the last stage this trains what stays float, the biases.
        train_epochs(model, optimizer, loader, range(epoch, epoch + 1))
        ray.train.report({"portion": portion, "top1": accuracy(model)})

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if ray.train.get_context().get_world_rank() == 0:
            inq.save(Path(folder) / FILE, model, inq_scheduler)  # checks every weight against its code
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({"portion": 1.0, "top1": accuracy(model)}, checkpoint=checkpoint)


def main() -> None:
    """Run the loop on two workers of the cluster that RAY_ADDRESS names, or of one on this machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder for the result; default: runs")
    output = parser.parse_args().output.resolve()
    result = TorchTrainer(
        train,
        train_loop_config={"lr": 0.05},
        scaling_config=ray.train.ScalingConfig(num_workers=2),
        run_config=ray.train.RunConfig(name="ray_train_loop", storage_path=str(output)),
    ).fit()
    file = Path(result.checkpoint.path) / FILE
    model = network()
    inq.load(file, model)
    print(f"top-1 {accuracy(model):.1f} % with all weights quantized; {file} has {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
