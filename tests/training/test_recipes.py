import pytest

from inq_ray.models.registry import check_arch
from inq_ray.training.config import RunConfig
from inq_ray.training.recipes import PAPER_PORTIONS, default_recipe, portions, recipe

# Accumulated portions as the paper's tables have them.
PAPER = {
    "alexnet-5bit": (0.3, 0.6, 0.8, 1),
    "vgg16-5bit": (0.5, 0.75, 0.875, 1),
    "googlenet-5bit": (0.2, 0.4, 0.6, 0.8, 1),
    "resnet18-5bit": (0.5, 0.75, 0.875, 1),
    "resnet50-5bit": (0.5, 0.75, 0.875, 1),
    "resnet18-4bit": (0.3, 0.5, 0.8, 0.9, 0.95, 1),
    "resnet18-3bit": (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 1),
    "resnet18-2bit": (0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 1),
}
OURS = ["digits_cnn-5bit", *(f"cifar_resnet20-{bits}bit" for bits in (5, 4, 3, 2))]


def test_the_papers_portions() -> None:
    assert {f"{arch}-{bits}bit": steps for (arch, bits), steps in PAPER_PORTIONS.items()} == PAPER


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


@pytest.mark.parametrize(("name", "near"), [("resnet18-3bits", "resnet18-3bit"), ("vgg-5", "vgg16-5bit"), ("", "alex")])
def test_an_unknown_recipe_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"--recipe {name}.*{near}"):
        recipe(name)
