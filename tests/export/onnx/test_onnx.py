"""ONNX and QONNX files: the weights in them are exact, outputs are those of the float model, bit for bit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from inq_ray.core.channels import Per
from inq_ray.core.codebook import Levels
from inq_ray.core.stage import apply, decide
from inq_ray.core.state import TensorState
from inq_ray.models.digits_cnn import DigitsCNN
from inq_ray.models.registry import create

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from inq_ray.export.onnx.codes import LAYOUTS, CodeNodes, Layout  # noqa: E402
from inq_ray.export.onnx.model import export_onnx, float_model, with_codes  # noqa: E402
from inq_ray.export.onnx.qonnx import export_qonnx  # noqa: E402
from inq_ray.export.onnx.reader import read  # noqa: E402
from tests.export.onnx.networks import DIGEST, codes_of, with_statistics  # noqa: E402

pytestmark = pytest.mark.system


def _run(model: bytes, images: Tensor) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    logits: np.ndarray = session.run(None, {"images": images.numpy()})[0]
    return logits


def _weight_of(nodes: CodeNodes, shape: tuple[int, ...]) -> np.ndarray:
    """The weight that nodes compute, by ONNX Runtime."""
    graph = onnx.helper.make_graph(
        nodes.nodes, "weight", [], [onnx.helper.make_tensor_value_info("w", 1, shape)], nodes.initializers
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 25)], ir_version=12)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    weight: np.ndarray = session.run(None, {})[0]
    return weight


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("per", ["tensor", "channel"])
@pytest.mark.parametrize("levels", ["paper", "full"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_nodes_make_the_exact_weight(bits: int, levels: Levels, per: Per, layout: Layout) -> None:
    torch.manual_seed(bits)
    for shape in ((3, 5, 3, 3), (7, 11), (2, 1), (4, 4)):
        weight = torch.randn(shape) * torch.rand(shape[0]).view(-1, *[1] * (len(shape) - 1))
        if len(shape) == 2:
            weight[0] = 0
        state = TensorState.live(weight, bits, levels, per)
        apply(weight, state, decide(weight, state, 1.0, name="w", strategy="pruning", seed=0, stage=0))
        assert np.array_equal(_weight_of(CodeNodes("w", state.codebook, state.codes, layout), shape), weight.numpy())


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (DigitsCNN, (1, 8, 8)),
        (lambda: create("cifar_resnet20", num_classes=10), (3, 32, 32)),
    ],
    ids=["digits_cnn", "cifar_resnet20"],
)
def test_outputs_are_those_of_the_float_model(
    make: Callable[[], nn.Module], size: tuple[int, int, int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = with_statistics(make())
    quantized = codes_of(network, 4, "paper", "tensor")
    plain = float_model(network, torch.zeros(2, *size))
    images = torch.randn(5, *size)
    expected = _run(plain.SerializeToString(), images)
    network.eval()
    assert np.allclose(expected, network(images).detach().numpy(), atol=1e-4)
    for layout in LAYOUTS:
        path = tmp_path / "net.onnx"
        export_onnx(network, torch.zeros(2, *size), path, quantized=quantized, layout=layout, facts={}, digest=DIGEST)
        data = (tmp_path / "net.onnx").read_bytes()
        assert np.array_equal(_run(data, images), expected)
        for tensor in onnx.load_from_string(data).graph.initializer:
            # No float tensor is as large as a quantized one: their weights are codes, and BatchNorm is on its own.
            assert tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) <= 64


def test_weights_of_another_graph_are_refused() -> None:
    network = DigitsCNN()
    quantized = codes_of(network, 4, "paper", "tensor")
    plain = float_model(network, torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="'other' is not in the exported graph under its name"):
        with_codes(plain, {"other": quantized["classifier.weight"]}, "small")


def test_what_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(ValueError, match="torch cannot export Odd as ONNX") as caught:
        export_onnx(Odd(), torch.zeros(2, 1, 8, 8), tmp_path / "net.onnx", quantized={}, facts={}, digest=DIGEST)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("bits", "levels", "per"), [(5, "paper", "tensor"), (3, "full", "channel"), (2, "paper", "tensor")]
)
def test_qonnx_leaves_weights_as_they_are(bits: int, levels: Levels, per: Per, tmp_path: Path) -> None:
    pytest.importorskip("qonnx")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    torch.manual_seed(0)
    network = with_statistics(DigitsCNN())
    quantized = codes_of(network, bits, levels, per)
    images = torch.randn(1, 1, 8, 8)
    export_qonnx(network, images, tmp_path / "net.onnx", quantized=quantized, facts={}, digest=DIGEST)
    model = ModelWrapper(str(tmp_path / "net.onnx")).transform(InferShapes())
    context = execute_onnx(model, {"images": images.numpy()}, return_full_exec_context=True)
    for name in quantized:
        assert np.array_equal(context[name], network.get_parameter(name).detach().numpy())
    expected = _run(float_model(network, images, 18).SerializeToString(), images)
    assert np.allclose(context["logits"], expected, atol=1e-5)


def test_a_small_vision_transformer_is_fused_as_its_float_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10)
    nn.init.normal_(network.get_parameter("heads.head.weight"))
    quantized = codes_of(network, 4)
    plain = float_model(network, torch.zeros(2, 3, 32, 32))
    images = torch.randn(3, 3, 32, 32)
    expected = _run(plain.SerializeToString(), images)
    assert np.array_equal(_run(with_codes(plain, quantized, "small").SerializeToString(), images), expected)


@pytest.mark.long
@pytest.mark.parametrize("arch", ["vit_b_16", "convnext_tiny", "timm/vit_tiny_patch16_224"])
def test_transformers_and_convnext(arch: str, tmp_path: Path) -> None:
    if arch.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    network = create(arch, num_classes=1000)
    for parameter in network.parameters():
        if parameter.dim() > 1 and not parameter.any():  # torchvision's heads
            nn.init.normal_(parameter)
    quantized = codes_of(network, 4)
    images, path = torch.randn(2, 3, 224, 224), tmp_path / "net.onnx"
    plain = float_model(network, images).SerializeToString()
    export_onnx(network, images, path, quantized=quantized, facts={}, digest=DIGEST)
    assert path.stat().st_size < len(plain) / 7
    found = read(path)
    assert all(torch.equal(found.state[name], network.get_parameter(name)) for name in quantized)
    images = torch.randn(3, 3, 224, 224)
    assert np.array_equal(_run(path.read_bytes(), images), _run(plain, images))
