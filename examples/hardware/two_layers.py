"""A network of two linear layers as C++ for high-level synthesis by hls4ml, compiled with g++, equal to torch.

Weights are powers of two at 5 bits, so that every product and sum is exact in fixed point. The widths are computed here
from the weights and the range of the inputs: hls4ml's defaults would round. Biases are rounded to the grid of their
layer's sums first. The outputs on all 1,797 images must equal torch's in float64, bit for bit.

    python two_layers.py [FOLDER]
"""

import math
from collections import OrderedDict
from pathlib import Path

import hls4ml
import numpy as np
import torch
from digits import FRACTION, accuracy, images, quantized, run_in_folder, trained
from torch import nn

BITS = 5


def main(folder: Path) -> None:
    """Print the widths, and compare the outputs."""
    network = trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)))
    print(f"float network: top-1 {accuracy(network):.2f} %")
    network, n_2 = quantized(network, BITS)
    print(f"powers of two, {BITS} bits: top-1 {accuracy(network):.2f} %")

    inputs = images()[0].flatten(1)
    layers = nn.Sequential(OrderedDict(first=network[1], relu=network[2], second=network[3])).double()
    precision = _precisions(layers, n_2)
    for layer, types in precision.items():
        print(f"{layer:6}  " + "  ".join(f"{name} {kind}" for name, kind in types.items()))

    config = hls4ml.utils.config_from_pytorch_model(
        layers.float(), (64,), granularity="name", backend="Vitis", default_precision="ap_fixed<8,2>"
    )
    for name, types in precision.items():
        config["LayerName"][name]["Precision"] = types
    model = hls4ml.converters.convert_from_pytorch_model(
        layers.float(), hls_config=config, output_dir=str(folder), backend="Vitis", io_type="io_parallel"
    )
    model.compile()
    found = model.predict(np.ascontiguousarray(inputs.double().numpy()))
    with torch.no_grad():
        expected = layers.double()(inputs.double())
    assert found.dtype == np.float64
    assert np.array_equal(found, expected.numpy())
    print(f"{len(inputs):,} images: outputs of the compiled C++ equal torch's, bit for bit")


def _precisions(layers: nn.Sequential, n_2: dict[str, int]) -> dict[str, dict[str, str]]:
    """Return the fixed-point types of each layer: exact for every input of magnitude 1 or less; rounds the biases."""
    fraction, largest = FRACTION, torch.ones(64, dtype=torch.float64)
    found = {}
    for name, parameter in (("first", "1.weight"), ("second", "3.weight")):
        layer = layers.get_submodule(name)
        weight, lowest = layer.weight.detach(), n_2[parameter]
        fraction -= lowest  # of a product, and so of a sum
        with torch.no_grad():
            layer.bias.copy_((layer.bias * 2.0**fraction).round() / 2.0**fraction)
        bias = layer.bias.detach()
        largest = weight.abs() @ largest + bias.abs()
        highest = math.frexp(float(weight.abs().max()))[1]  # bits above the point, without the sign
        sums = math.frexp(float(largest.max()))[1]
        of_bias = math.frexp(float(bias.abs().max()))[1]
        found[name] = {
            "weight": _fixed(highest, -lowest),
            "bias": _fixed(of_bias, fraction),
            "accum": _fixed(sums, fraction),
            "result": _fixed(sums, fraction),
        }
    found["relu"] = {"result": found["first"]["result"]}
    return found


def _fixed(above: int, below: int) -> str:
    """Return a signed type with bits above and below the point; `above` may be negative."""
    return f"ap_fixed<{above + below + 1},{above + 1}>"


if __name__ == "__main__":
    run_in_folder(main)
