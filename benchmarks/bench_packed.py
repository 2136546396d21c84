"""Sizes of packed files, and CPU seconds to write and read them on one thread: ResNet-18 and ResNet-50, random weights.

The limit is the entropy of single codes, tensor by tensor, plus what stays float.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from inq_ray import load
from inq_ray.core.stage import apply, decide
from inq_ray.core.state import TensorState
from inq_ray.export.packed.reader import read
from inq_ray.export.packed.writer import write
from inq_ray.export.result import Result
from inq_ray.export.table import rows_of
from inq_ray.models.registry import create
from inq_ray.models.selection import choose


def main() -> None:
    """Print a table."""
    torch.set_num_threads(1)
    print("network   bits float32 MB  int8 MB packed MB limit MB  write s (of float)  read s (of float)")
    for arch in ("resnet18", "resnet50"):
        for bits in (5, 4, 3, 2):
            sizes, seconds = measured(arch, bits)
            cells = " ".join(f"{each / 1e6:{width}.2f}" for each, width in zip(sizes, (10, 8, 9, 8), strict=True))
            write_, read_ = (f"{packed:7.2f} ({packed / plain:.1f})" for packed, plain in seconds)
            print(f"{arch:9} {bits:4} {cells}  {write_:>18}  {read_:>17}")


def measured(arch: str, bits: int) -> tuple[tuple[float, ...], tuple[tuple[float, float], ...]]:
    """Return bytes as float32, int8, packed, and of the limit; and seconds to write, and to read, a file.

    Seconds are of the packed file, and of the network as float32 by the library safetensors.
    """
    torch.manual_seed(0)
    network, states = create(arch, num_classes=1000), {}
    for name in choose(network, bits):
        weight = network.get_parameter(name)
        states[name] = TensorState.live(weight, bits)
        update = decide(weight, states[name], 1.0, name=name, strategy="pruning", seed=0, stage=0, rule="mse")
        apply(weight, states[name], update)
    result = Result(network.state_dict(), states)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.inq.safetensors"
        floats, state = Path(folder) / "network.safetensors", network.state_dict()
        seconds = (
            (_seconds(lambda: write(path, result)), _seconds(lambda: save_file(state, floats))),
            (_seconds(lambda: load(path)), _seconds(lambda: load_file(floats))),
        )
        rows, size = rows_of(read(path)), path.stat().st_size
    plain = sum(row.num_bytes for row in rows if row.bits is None)
    weights = sum(row.num_values for row in rows if row.bits)
    limit = plain + sum(row.entropy * row.num_values for row in rows) / 8
    return (plain + 4 * weights, plain + weights, size, limit), seconds


def _seconds(run: Callable[[], object]) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
