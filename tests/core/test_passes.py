"""Passes stop at modules, go on where they are told to, and leave nothing behind."""

import threading

import pytest
import torch
from torch import Tensor, nn

from inq_ray.core.passes import Pass


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))


def test_it_stops_at_each_module_once_and_sees_what_was_changed_by_then() -> None:
    network, batch = make(), torch.randn(5, 3)
    stops = [network[0], network[2]]
    with Pass(network, batch, stops) as one, Pass(network, 2 * batch, stops) as two:
        first = [each.advance() for each in (one, two)]
        assert [call is not None and call.module for call in first] == [network[0]] * 2
        assert first[0] is not None
        assert torch.equal(first[0].args[0], batch)
        with torch.no_grad():
            network.get_parameter("0.weight").zero_()
            network.get_parameter("0.bias").fill_(1.0)
        second = [each.advance() for each in (one, two)]
        assert [call is not None and call.module for call in second] == [network[2]] * 2
        assert second[0] is not None
        assert torch.equal(second[0].args[0], torch.ones(5, 4))
        assert [each.advance() for each in (one, two)] == [None, None]
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_errors_of_the_network_are_the_caller_s_and_threads_end() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError(f"cannot take {tuple(x.shape)}")

    before = threading.active_count()
    network = nn.Sequential(nn.Linear(3, 3), Broken())
    with Pass(network, torch.ones(2, 3), [network[0]]) as one:
        assert one.advance() is not None
        with pytest.raises(RuntimeError, match=r"cannot take \(2, 3\)"):
            one.advance()
    with Pass(network, torch.ones(2, 3), [network[0]]) as one:
        assert one.advance() is not None  # and is given up there
    with Pass(network, torch.ones(2, 3), [network[0]]):
        pass
    assert threading.active_count() == before


def test_a_network_that_catches_exceptions_can_be_abandoned() -> None:
    class Careless(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            for layer in self:
                try:
                    x = layer(x)
                except Exception:  # noqa: BLE001
                    continue
            return x

    network, before = Careless(nn.Linear(3, 3), nn.Linear(3, 3)), threading.active_count()
    with Pass(network, torch.ones(2, 3), network) as one:
        assert one.advance() is not None
    assert threading.active_count() == before
