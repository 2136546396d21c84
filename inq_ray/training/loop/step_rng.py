"""What a network draws by itself while it trains, such as dropout: a function of where in the run it is."""

import hashlib

import torch


def seed_draws(device: torch.device, *place: int) -> None:
    """Makes all draws from here on a function of the place, and not of what came before.

    Args:
        device: on which the network draws.
        place: the run's seed, epoch, step, rank.
    """
    seed = int.from_bytes(hashlib.blake2b(repr(place).encode(), digest_size=7).digest(), "little")
    # As torch.manual_seed, which takes a hundred times as long where there is no GPU.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
