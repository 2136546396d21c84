"""Networks of torchvision and timm as ONNX files with 4-bit codes: which export, how small, and whether exact.

Each network has random weights, quantized. torch exports it, the file is verified, and ONNX Runtime runs it and the
float file on the same images. Prints a row of a Markdown table for each network.

    python benchmarks/bench_onnx_networks.py [NETWORK ...]
"""

import gc
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from inq_ray.core.stage import apply, decide
from inq_ray.core.state import TensorState
from inq_ray.export.onnx.model import export_onnx, float_model
from inq_ray.export.onnx.reader import read
from inq_ray.export.packed.reader import PackedTensor
from inq_ray.models.eval_transform import eval_transform
from inq_ray.models.registry import create
from inq_ray.models.selection import choose

NETWORKS = (
    *("cifar_resnet20", "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"),
    *("densenet121", "googlenet", "inception_v3", "regnet_y_400mf", "shufflenet_v2_x0_5", "mnasnet0_5"),
    *("squeezenet1_1", "vgg11", "alexnet", "convnext_tiny", "vit_b_16", "swin_t", "maxvit_t"),
    *("timm/resnet18", "timm/efficientnet_b0", "timm/mobilenetv3_small_100", "timm/regnety_002", "timm/convnext_atto"),
    *("timm/convnextv2_atto", "timm/vit_tiny_patch16_224", "timm/deit_tiny_patch16_224", "timm/mixer_s32_224"),
    *("timm/swin_tiny_patch4_window7_224", "timm/repvgg_a0", "timm/mobileone_s0", "timm/ghostnet_100"),
)
_BITS = 4


def main(names: list[str]) -> None:
    """Print the table."""
    print("| network | weights in codes | float file, MB | 4 bits, MB | of float | outputs in ONNX Runtime |")
    print("|---|---:|---:|---:|---:|---|", flush=True)
    for arch in names or NETWORKS:
        print(_row(arch), flush=True)
        gc.collect()


def _row(arch: str) -> str:
    torch.manual_seed(0)
    is_cifar = arch.startswith("cifar")
    network = _with_statistics(create(arch, num_classes=10 if is_cifar else 1000))
    quantized = _quantized(network)
    size = 32 if is_cifar else eval_transform(arch).crop_size
    images = torch.randn(2, 3, size, size)
    weights = sum(tensor.codes.numel() for tensor in quantized.values())
    share = 100 * weights / sum(each.numel() for each in network.parameters())
    with tempfile.TemporaryDirectory() as folder:
        plain, path = Path(folder) / "float.onnx", Path(folder) / "codes.onnx"
        try:
            plain.write_bytes(float_model(network, images).SerializeToString())
            export_onnx(network, images, path, quantized=quantized, facts={}, digest="0" * 64)
        except ValueError as error:
            return f"| `{arch}` | {share:.1f} % | | | | {error} |"
        found = read(path)
        assert all(torch.equal(found.state[name], network.get_parameter(name)) for name in quantized)
        large, small = plain.stat().st_size, path.stat().st_size
        # Another number of images than at the export
        images = torch.randn(3, 3, size, size)
        expected, logits = (_run(each, images) for each in (plain, path))
    same = "the float file's, bit for bit" if np.array_equal(expected, logits) else "DIFFERENT"
    with torch.no_grad():
        difference = float((network.eval()(images) - torch.from_numpy(expected)).abs().max() / np.abs(expected).max())
    assert difference < 1e-3, (arch, difference)
    return f"| `{arch}` | {share:.1f} % | {large / 1e6:.2f} | {small / 1e6:.2f} | 1/{large / small:.1f} | {same} |"


def _with_statistics(network: nn.Module) -> nn.Module:
    """Return the network with BatchNorm that would change weights if it were folded into them, and no zero weights."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    for parameter in network.parameters():
        if parameter.dim() > 1 and not parameter.any():  # torchvision's heads
            nn.init.normal_(parameter, std=0.02)
    return network


def _quantized(network: nn.Module) -> dict[str, PackedTensor]:
    found = {}
    for name in choose(network, _BITS):
        weight = network.get_parameter(name)
        state = TensorState.live(weight, _BITS)
        apply(weight, state, decide(weight, state, 1.0, name=name, strategy="pruning", seed=0, stage=0))
        found[name] = PackedTensor(codebook=state.codebook, codes=state.codes, num_bytes=0)
    return found


def _run(path: Path, images: Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    logits: np.ndarray = session.run(None, {"images": images.numpy()})[0]
    return logits


if __name__ == "__main__":
    main(sys.argv[1:])
