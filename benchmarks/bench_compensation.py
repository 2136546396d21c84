"""CPU seconds of a compensated stage of a torchvision network, as initialized: moments of 512 images, and each stage.

    python benchmarks/bench_compensation.py [NETWORK [PIXELS]]

One thread. Images are noise: the moments' cost does not depend on them, that of a stage does slightly.
"""

import sys
import time

import torch
import torchvision

from inq_ray.core.moments import Moments
from inq_ray.core.stage import apply, compensated, decide
from inq_ray.core.state import TensorState

PORTIONS = (0.5, 0.75, 0.875, 1.0)
NUM_IMAGES, BATCH_SIZE = 512, 128


@torch.no_grad()
def main() -> None:
    """Print a line for each part."""
    name, pixels = (sys.argv[1:] + ["resnet18", "64"][len(sys.argv) - 1 :])[:2]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = torchvision.models.get_model(name).eval()
    params = {key: param for key, param in network.named_parameters() if param.ndim > 1}
    states = {key: TensorState.live(param, 3) for key, param in params.items()}
    batches = torch.randn(NUM_IMAGES, 3, int(pixels), int(pixels)).split(BATCH_SIZE)
    begin = time.process_time()
    for batch in batches:
        network(batch)
    alone = time.process_time()
    with Moments(network, params) as moments:
        for batch in batches:
            network(batch)
    gathered = time.process_time()
    print(f"{name} at {pixels} pixels, {NUM_IMAGES} images: forward {alone - begin:.1f} s", flush=True)
    print(f"forward with moments: {gathered - alone:.1f} s", flush=True)
    for stage, portion in enumerate(PORTIONS):
        begin = time.process_time()
        for key, param in params.items():
            update = decide(param, states[key], portion, name=key, strategy="pruning", seed=0, stage=stage, rule="mse")
            found = moments.of(key)
            apply(param, states[key], update if found is None else compensated(param, states[key], update, found))
        print(f"stage to {portion}: {time.process_time() - begin:.1f} s", flush=True)


if __name__ == "__main__":
    main()
