import pytest
import torch
from torch import nn

from inq_ray.core.optim.sgd import SGD
from inq_ray.training.loop.device_rates import DeviceRates, round_rates

CPU = torch.device("cpu")


def make_optimizer(*, nesterov: bool, dtype: torch.dtype = torch.float32) -> SGD:
    torch.manual_seed(1)
    params = [nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in ((37, 5, 3, 3), (37,), (11, 37))]
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.3}]
    optimizer = SGD(groups, lr=0.1, momentum=0.9, weight_decay=1e-2, nesterov=nesterov, fused=True)
    optimizer.freeze(params[0], torch.rand_like(params[0]) < 0.5)
    optimizer.freeze(params[2], torch.rand_like(params[2]) < 0.9)
    return optimizer


def params_of(optimizer: SGD) -> list[torch.Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("nesterov", [False, True])
def test_a_step_by_tensors_has_the_bits_of_one_by_rounded_floats(nesterov: bool, dtype: torch.dtype) -> None:
    by_float, by_tensor = (make_optimizer(nesterov=nesterov, dtype=dtype) for _ in range(2))
    rates = DeviceRates(by_tensor, CPU)
    for step in range(6):
        grads = [torch.randn_like(param) for param in params_of(by_float)]
        for optimizer in (by_float, by_tensor):
            for group in optimizer.param_groups:
                group["lr"] *= 0.7
            for param, grad in zip(params_of(optimizer), grads, strict=True):
                param.grad = grad.clone()
        round_rates(by_float)
        rates.fill()
        by_float.step()
        with rates.read():
            by_tensor.step()
        for one, other in zip(params_of(by_float), params_of(by_tensor), strict=True):
            assert one.equal(other), step
            assert by_float.state[one]["momentum_buffer"].equal(by_tensor.state[other]["momentum_buffer"])
        round_rates(by_tensor)


def test_schedules_and_checkpoints_see_floats() -> None:
    optimizer = make_optimizer(nesterov=False)
    rates = DeviceRates(optimizer, CPU)
    rates.fill()
    with rates.read():
        assert all(isinstance(group["lr"], torch.Tensor) for group in optimizer.param_groups)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.3]
    with pytest.raises(KeyError), rates.read():
        raise KeyError
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.3]


def test_a_rounded_rate_stays_what_it_is() -> None:
    optimizer = make_optimizer(nesterov=False)
    round_rates(optimizer)
    rounded = [group["lr"] for group in optimizer.param_groups]
    assert rounded == [torch.tensor(rate, dtype=torch.float32).item() for rate in (0.1, 0.3)]
    assert rounded != [0.1, 0.3]
    round_rates(optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == rounded
