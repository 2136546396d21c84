"""`--weights` by name: torchvision's from a file in place of the internet, timm's from the hub's own cache."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from inq_ray.models.registry import create
from inq_ray.models.weights.load import load_weights
from inq_ray.models.weights.pretrained import resolve_weights
from tests.models.touch import Touch

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch.hub and the Hugging Face hub keep what they download; empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def publish(monkeypatch: pytest.MonkeyPatch, folder: Path, weights: Any, state: dict[str, Tensor]) -> str:
    """Put a file in the place of what an enum of torchvision names; returns its name."""
    torch.save(state, folder / "file")
    digits = hashlib.sha256((folder / "file").read_bytes()).hexdigest()[:8]
    path = (folder / "file").rename(folder / f"net-{digits}.pth")
    monkeypatch.setattr(weights.value, "url", path.as_uri())
    return path.name


@pytest.mark.parametrize("name", ["DEFAULT", "IMAGENET1K_V1", "MobileNet_V3_Small_Weights.IMAGENET1K_V1"])
def test_names_of_torchvision(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import MobileNet_V3_Small_Weights as Weights

    trained = create("mobilenet_v3_small", num_classes=1000)
    published = publish(monkeypatch, home, Weights.IMAGENET1K_V1, trained.state_dict())
    path = resolve_weights("mobilenet_v3_small", name)
    assert path == home / "torch" / "hub" / "checkpoints" / published
    model = create("mobilenet_v3_small", num_classes=1000)
    load_weights(model, path)
    assert all(torch.equal(tensor, trained.state_dict()[key]) for key, tensor in model.state_dict().items())


def test_a_member_is_not_taken_for_another(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import ResNet50_Weights as Weights

    second = publish(monkeypatch, home, Weights.IMAGENET1K_V2, {"a": torch.zeros(2)})
    first = publish(monkeypatch, home, Weights.IMAGENET1K_V1, {"a": torch.zeros(1)})
    for name, expected in (("IMAGENET1K_V1", first), ("IMAGENET1K_V2", second), ("DEFAULT", second)):
        path = resolve_weights("resnet50", name)
        assert path is not None
        assert path.name == expected


def test_files_and_none(home: Path) -> None:
    assert resolve_weights("resnet18", None) is None
    for name in ("a.pth", "no suffix"):
        (home / name).write_bytes(b"")
        assert resolve_weights("resnet18", str(home / name)) == home / name


def test_a_file_of_the_name_of_weights_goes_before(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "DEFAULT").write_bytes(b"")
    assert resolve_weights("resnet18", "DEFAULT") == Path("DEFAULT")


@pytest.mark.parametrize(
    ("arch", "weights", "told"),
    [
        ("resnet18", "IMAGENET1K_V9", "a name of torchvision's trained weights for resnet18; .*IMAGENET1K_V1$"),
        ("vit_b_16", "SWAG", "nearest: IMAGENET1K_V1, IMAGENET1K_SWAG_E2E_V1, IMAGENET1K_SWAG_LINEAR_V1, DEFAULT$"),
        ("resnet18", "ResNet50_Weights.IMAGENET1K_V2", "neither a file nor .*nearest: IMAGENET1K_V1"),
        ("digits_cnn", "DEFAULT", "only for networks of torchvision and timm, not for digits_cnn"),
        ("json:dumps", "DEFAULT", "only for networks of torchvision and timm, not for json:dumps"),
        ("resnet18", "a.pth", "no such file: a.pth"),
        ("resnet18", "folder/", "no such file: folder"),
        ("resnet18", "/tmp", "not a file: /tmp"),
        ("resnet19", "DEFAULT", "not a known network"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(arch: str, weights: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        resolve_weights(arch, weights)
    assert "\n" not in str(error.value)


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the Hugging Face hub's client, empty, and no network; without timm the test is skipped."""
    pytest.importorskip("timm", reason="the extra timm is not installed")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return home / "hub"


def place(hub: Path, repository: str, name: str) -> Path:
    """Return where the hub's client would have put a file of a repository that it downloaded."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    return folder / "snapshots" / ("0" * 40) / name


def test_tags_of_timm_load_through_timm_once(hub: Path, home: Path) -> None:
    import timm

    trained = timm.create_model("test_vit", num_classes=1000).state_dict()
    placed = place(hub, "timm/test_vit.r160_in1k", "model.safetensors")
    save_file(trained, placed)
    path = resolve_weights("timm/test_vit", "DEFAULT")
    assert path == home / "torch" / "hub" / "checkpoints" / f"timm-{timm.__version__}-test_vit.r160_in1k.safetensors"
    model = create("timm/test_vit", num_classes=1000)
    load_weights(model, path)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in trained.items())
    placed.unlink()
    assert resolve_weights("timm/test_vit", "r160_in1k") == path, "made once"
    assert resolve_weights("timm/test_vit.r160_in1k", "DEFAULT") == path


def test_code_in_a_file_of_the_hub_is_not_run(hub: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a repository has no safetensors, timm takes its other file by torch's weights-only loader."""
    import timm

    torch.save({"a": Touch(home / "ran")}, place(hub, "timm/test_vit.r160_in1k", "pytorch_model.bin"))
    config = timm.models.get_pretrained_cfg("test_vit")
    config.hf_hub_filename = "pytorch_model.bin"
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda _: config)
    with pytest.raises(ValueError, match=r"cannot load .* weights_only=True blocked loading"):
        resolve_weights("timm/test_vit", "DEFAULT")
    assert not (home / "ran").exists()


def test_a_network_of_timm_that_is_not_on_the_hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few have an address of their own; what timm's filter makes of the file is kept."""
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    trained = timm.create_model("test_resnet", num_classes=1000)
    torch.save(trained.state_dict(), home / "net.pth")
    config = timm.models.get_pretrained_cfg("test_resnet")
    config.hf_hub_id, config.url = None, (home / "net.pth").as_uri()
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda _: config)
    path = resolve_weights("timm/test_resnet", "DEFAULT")
    assert path is not None
    assert all(torch.equal(tensor, trained.state_dict()[key]) for key, tensor in load_file(path).items())


@pytest.mark.parametrize(
    ("arch", "weights", "told"),
    [
        ("timm/resnet18", "a4_in1k", "--weights a4_in1k: timm has no such weights for resnet18; nearest: a[123]"),
        ("timm/resnet18.a4_in1k", "DEFAULT", "arch='timm/resnet18.a4_in1k': timm has no such weights"),
        ("timm/nf_resnet26", "DEFAULT", "timm has no trained weights for nf_resnet26; pass a file"),
    ],
)
def test_names_that_timm_does_not_have(arch: str, weights: str, told: str) -> None:
    pytest.importorskip("timm", reason="the extra timm is not installed")
    with pytest.raises(ValueError, match=told):
        resolve_weights(arch, weights)


@pytest.mark.usefixtures("hub")
def test_no_network_and_no_cache_is_one_line() -> None:
    told = (
        r"^weights: cannot load timm/test_vit.r160_in1k from the Hugging Face hub: .*; download its "
        r"model.safetensors on a machine with internet access, and pass --weights FILE$"
    )
    with pytest.raises(ValueError, match=told) as error:
        resolve_weights("timm/test_vit", "DEFAULT")
    assert "\n" not in str(error.value)
