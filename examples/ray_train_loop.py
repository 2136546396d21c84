"""Quantize in a training loop of your own under Ray Train: two workers, DDP, 4 bits.

    python examples/ray_train_loop.py

Every worker calls `INQScheduler.step`: rank 0 decides which weights freeze, all apply it, and all must then hold the
same bits. The data are points of five classes, so that the loop is all there is to read.
"""

import ray.train
import torch
from ray.train.torch import TorchTrainer, get_device, prepare_data_loader, prepare_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import inq_ray as inq

PORTIONS = [0.5, 0.75, 0.875, 1.0]
NUM_CLASSES = 5


def points(count: int, seed: int) -> TensorDataset:
    """Return points float32 [count, 16] around one center for each class, and their classes int64 [count]."""
    centers = torch.randn(NUM_CLASSES, 16, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
    return TensorDataset(centers[labels] + torch.randn(count, 16, generator=generator), labels)


def train_epochs(model: nn.Module, optimizer: inq.SGD, loader: DataLoader[tuple[Tensor, ...]], epochs: int) -> None:
    """Train as ever: the optimizer moves live weights only."""
    for epoch in range(epochs):
        if ray.train.get_context().get_world_size() > 1:
            loader.sampler.set_epoch(epoch)
        for inputs, labels in loader:
            optimizer.zero_grad()
            cross_entropy(model(inputs), labels).backward()
            optimizer.step()


@torch.inference_mode()
def accuracy(model: nn.Module) -> float:
    """Return the share of points that are recognized, in %."""
    inputs, labels = (tensor.to(get_device()) for tensor in points(1000, seed=2).tensors)
    return 100 * (model(inputs).argmax(1) == labels).double().mean().item()


def train(config: dict[str, float]) -> None:
    """Train in float, then quantize in stages; on every worker."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, NUM_CLASSES))
    model = prepare_model(network)
    loader = prepare_data_loader(DataLoader(points(4000, seed=1), batch_size=50, shuffle=True))
    optimizer = inq.SGD(inq.param_groups(model, weight_bits=4), lr=config["lr"], momentum=0.9)
    train_epochs(model, optimizer, loader, epochs=3)
    ray.train.report({"portion": 0.0, "top1": accuracy(model)})

    inq_scheduler = inq.INQScheduler(optimizer, PORTIONS)
    for portion in PORTIONS:
        inq_scheduler.step()  # freeze the next portion as powers of two
        train_epochs(model, optimizer, loader, epochs=1)  # after the last stage: what stays float, the biases
        ray.train.report({"portion": portion, "top1": accuracy(model)})

    weights = inq.float_state(inq_scheduler)  # from the codes; the network holds the same bits
    assert all(torch.equal(network.get_parameter(name), weight) for name, weight in weights.items())
    if ray.train.get_context().get_world_rank() == 0:
        print(f"{sum(weight.numel() for weight in weights.values()):,} weights are 0 or powers of two")


def main() -> None:
    """Run the loop on two workers of the cluster that RAY_ADDRESS names, or of one on this machine."""
    scaling = ray.train.ScalingConfig(num_workers=2)
    result = TorchTrainer(train, train_loop_config={"lr": 0.05}, scaling_config=scaling).fit()
    print(f"top-1 {result.metrics['top1']:.1f} % with all weights quantized")


if __name__ == "__main__":
    main()
