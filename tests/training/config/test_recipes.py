from pathlib import Path

import pytest

from inq_ray.models.registry import check_arch
from inq_ray.training.config import RunConfig
from inq_ray.training.config.recipes import PAPER_PORTIONS, default_recipe, lossless_recipe, portions, recipe
from inq_ray.training.flags.parse import parse

PAPER = {f"{arch}-{bits}bit": steps for (arch, bits), steps in PAPER_PORTIONS.items()}
OURS = ["digits_cnn-5bit", *(f"cifar_resnet20-{bits}bit" for bits in (5, 4, 3, 2))]


@pytest.mark.parametrize("name", [*PAPER, *OURS])
def test_every_recipe_is_a_valid_configuration(name: str) -> None:
    config = recipe(name)
    arch, bits = name.rsplit("-", 1)
    assert config.network.arch == arch
    assert f"{config.quantization.weight_bits}bit" == bits
    assert config.quantization.iterative_steps == PAPER.get(name, PAPER[f"resnet18-{bits}"])
    assert RunConfig.from_json(config.to_json()) == config
    check_arch(arch)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2", "cifar_resnet56", "digits_cnn"])
def test_every_network_has_a_default_at_all_bits(arch: str, bits: int) -> None:
    config = default_recipe(arch, bits)
    assert config.quantization.iterative_steps == portions(arch, bits) == PAPER[f"resnet18-{min(bits, 5)}bit"]
    assert (config.network.arch, config.quantization.weight_bits) == (arch, bits)
    assert config.quantization.codebook == ("mse" if bits == 2 else "max")


@pytest.mark.parametrize(
    ("arch", "like"),
    [
        ("timm/resnet18", "resnet18"),
        ("timm/resnet18.a1_in1k", "resnet18"),
        ("timm/vgg16.tv_in1k", "vgg16"),
        ("vgg16_bn", "vgg16"),
        ("resnet34", "resnet50"),
    ],
)
def test_variants_have_the_portions_of_the_papers_network(arch: str, like: str) -> None:
    assert portions(arch, 5) == PAPER[f"{like}-5bit"]
    assert default_recipe(arch, 5).training == default_recipe(like, 5).training


@pytest.mark.parametrize(
    "arch", ["my.nets:make", "cifar_nets:make", "digits_cnn:make", "alexnet:make", "timm/x.alexnet"]
)
def test_a_network_of_ones_own_has_the_recipe_of_imagenet_whatever_its_name(arch: str) -> None:
    """A bug once: a name that began like one of ours got its recipe."""
    config = default_recipe(arch, 3)
    assert config.network.arch == arch
    assert config.quantization.iterative_steps == PAPER["resnet18-3bit"]
    assert config.training == default_recipe("resnet18", 3).training
    assert default_recipe(arch, 5).quantization.iterative_steps == PAPER["resnet18-5bit"]


@pytest.mark.parametrize(("name", "near"), [("resnet18-3bits", "resnet18-3bit"), ("vgg-5", "vgg16-5bit"), ("", "alex")])
def test_an_unknown_recipe_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"--recipe {name}.*{near}"):
        recipe(name)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(
    "arch", ["cifar_resnet20", "cifar_resnet56", "resnet18", "timm/resnet18", "my.nets:make", "digits_cnn"]
)
def test_the_lossless_recipe_is_the_default_with_more_care(arch: str, bits: int) -> None:
    careful, default = lossless_recipe(arch, bits), default_recipe(arch, bits)
    assert careful.quantization.iterative_steps == default.quantization.iterative_steps
    assert careful.training.distill
    assert (careful.training.lr_probe, careful.training.lr_schedule) == (True, "cosine")
    assert careful.quantization.compensate
    assert careful.quantization.levels == ("full" if bits in (3, 4) else "paper")
    assert sum(careful.stage_epochs) == 40
    assert min(careful.stage_epochs) == careful.stage_epochs[-1] == 1
    assert list(careful.stage_epochs[:-1]) == sorted(careful.stage_epochs[:-1])
    assert careful.training.batch_size == (
        64 if arch in ("my.nets:make", "digits_cnn") else default.training.batch_size
    )


@pytest.mark.parametrize("bits", range(2, 6))
def test_recipes_of_the_table(bits: int) -> None:
    of_table = recipe(f"cifar_resnet20-{bits}bit")
    assert of_table.training.distill
    assert (of_table.training.lr_schedule, of_table.training.ema_share) == ("constant", 0.3)
    assert (of_table.training.cutmix, of_table.training.distill_labels) == ((1.0, 0.0) if bits < 4 else (0.0, 0.3))
    assert sum(of_table.stage_epochs) in (10, 14, 16, 18)
    assert of_table.lr_of(1) == 0.02
    assert min(of_table.stage_epochs) > 0


def test_two_bits_in_a_layer_take_the_codebook_of_two_bits() -> None:
    words = ["--weight-bits", "4", "--layer-bits", "a=3", "b=2"]
    assert parse(words).run.quantization.codebook == "mse"
    assert parse(words[:-1]).run.quantization.codebook == "max"
    assert parse([*words, "--codebook", "max"]).run.quantization.codebook == "max"


def test_a_file_keeps_bits_of_layers_and_flags_replace_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(parse(["--layer-bits", "b=3", "a=4", "b=3"]).run.to_json())
    assert parse(["--config", str(path)]).run.quantization.layer_bits == ("a=4", "b=3")
    assert parse(["--config", str(path), "--layer-bits", "c=8"]).run.quantization.layer_bits == ("c=8",)
    assert parse(["--config", str(path), "--layer-bits"]).run.quantization.layer_bits == ()
