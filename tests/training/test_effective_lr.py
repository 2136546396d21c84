"""Rates that say the same whatever the size of a network's weights."""

import copy
import statistics
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from inq_ray import INQScheduler, param_groups
from inq_ray.core.codebook import Rule
from inq_ray.training.effective_lr import lr_unit
from inq_ray.training.phase import make_stage_optimizer, set_rate
from inq_ray.training.recipes import default_recipe


def network(seed: int) -> nn.Sequential:
    """All of it is normalized and BatchNorm adds nothing to a variance: its weights may be of any size."""
    torch.manual_seed(seed)
    norms = [nn.BatchNorm2d(4, eps=1e-30, affine=False), nn.BatchNorm1d(5, eps=1e-30, affine=False)]
    layers = [nn.Conv2d(3, 4, 3, bias=False), norms[0], nn.ReLU(), nn.Flatten(), nn.Linear(64, 5, bias=False), norms[1]]
    return nn.Sequential(*layers)


def scaled(model: nn.Sequential, factor: float) -> nn.Sequential:
    model = copy.deepcopy(model)
    with torch.no_grad():
        for param in model.parameters():
            param.mul_(factor)
    return model


def trained(model: nn.Sequential, *, effective: bool, rule: Rule, **training: Any) -> tuple[Tensor, list[Tensor]]:
    """Quantizes in two stages of five steps; returns the last outputs, and the weights relative to their first size."""
    config = default_recipe("cifar_resnet20", 3).replace(training={"effective_lr": effective, "lr": 0.05, **training})
    optimizer = make_stage_optimizer(config, param_groups(model, 3))
    scheduler = INQScheduler(optimizer, (0.4, 0.8), "pruning", 0, codebook=rule)
    draws = torch.Generator().manual_seed(1)
    outputs = torch.zeros(())
    for stage in (1, 2):
        scheduler.step()
        set_rate(optimizer, config.lr_of(stage), config.training.weight_decay)
        for _ in range(5):
            optimizer.zero_grad()
            outputs = model(torch.rand(16, 3, 6, 6, generator=draws))
            outputs.logsumexp(1).mean().sub(outputs[:, 0].mean()).backward()
            optimizer.step()
    return outputs.detach(), [param.detach() for param in model.parameters()]


@pytest.mark.parametrize("rule", ["max", "mse"])
@given(seed=st.integers(0, 99), exponent=st.sampled_from([-3, -1, 1, 2]), nesterov=st.booleans())
def test_a_network_with_weights_twice_as_large_learns_the_same(
    rule: Rule, seed: int, exponent: int, nesterov: bool
) -> None:
    # By powers of two nothing is rounded otherwise, so the bits are the same, and so are the codes.
    factor = 2.0**exponent
    options: dict[str, Any] = {"rule": rule, "nesterov": nesterov, "weight_decay": 0.1}
    outputs, weights = trained(network(seed), effective=True, **options)
    same, others = trained(scaled(network(seed), factor), effective=True, **options)
    assert torch.equal(outputs, same)
    assert all(torch.equal(weight * factor, other) for weight, other in zip(weights, others, strict=True))
    different, _ = trained(scaled(network(seed), factor), effective=False, **options)
    assert not torch.equal(outputs, different)


@given(
    shapes=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_the_unit_is_the_median_over_tensors_of_a_filters_squared_norm(shapes: list[list[int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(shape, generator=generator) + 0.1 for shape in shapes]
    groups = [
        {"params": [(str(i), weight) for i, weight in enumerate(weights)], "weight_bits": 3},
        {"params": [("float", torch.full((1,), 1e9))], "weight_bits": None},
    ]
    norms = [statistics.mean(float(row.double().norm()) ** 2 for row in weight) for weight in weights]
    assert lr_unit(groups) == pytest.approx(statistics.median(norms), rel=1 / 256)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_weights_without_a_size_are_refused_in_one_line(value: float) -> None:
    model = network(0)
    with torch.no_grad():
        for param in model.parameters():
            param.fill_(value)
    with pytest.raises(ValueError, match=r"--effective-lr .* filters, which is (0\.0|nan|inf): give trained"):
        lr_unit(param_groups(model, 3))


def test_the_rate_of_the_given_network_and_of_one_half_as_large() -> None:
    config = default_recipe("cifar_resnet20", 3).replace(training={"effective_lr": True, "lr": 0.025})
    for factor in (1.0, 0.5):
        model = scaled(network(0), factor)
        optimizer = make_stage_optimizer(config, param_groups(model, 3))
        set_rate(optimizer, config.lr_of(1), 1e-4)
        unit = lr_unit(param_groups(model, 3))
        for group in optimizer.param_groups:
            assert group["lr"] == group["initial_lr"] == 0.025 * unit
            assert group["weight_decay"] == 1e-4 / unit
