"""Network interfaces: which leads to the other nodes, and what is said of it."""

import os
import socket

import pytest
import ray

from inq_ray.cluster.node import interface as module
from inq_ray.cluster.node.interface import Interface, choose_for_gloo, described, holding, interfaces

assert ray.__file__  # importing Ray makes the psutil that it carries importable


def up(name: str, address: str, megabits: int = 0) -> Interface:
    return Interface(name=name, addresses=frozenset({address}), megabits=megabits)


NODE = {"eth0": up("eth0", "10.0.0.5", 10000), "ib0": up("ib0", "10.1.0.5", 200000), "eth1": up("eth1", "10.2.0.5")}


@pytest.mark.parametrize(
    ("address", "chosen", "words"),
    [
        ("10.0.0.5", None, "link eth0 at 10 Gbit/s, not eth1, ib0"),
        ("10.2.0.5", None, "link eth1 of unknown speed, not eth0, ib0"),
        ("10.0.0.5", "ib0", "link ib0 at 200 Gbit/s, not eth0, eth1"),
        ("10.0.0.5", "^docker,lo", "link ^docker,lo, set by the environment"),
        ("127.0.0.2", None, "link lo"),
        ("10.9.0.5", None, "no interface has 10.9.0.5"),
    ],
)
def test_a_link_in_words(address: str, chosen: str | None, words: str) -> None:
    assert described(address, NODE, chosen) == words


def test_one_interface_needs_no_others_named() -> None:
    assert described("10.0.0.5", {"eth0": up("eth0", "10.0.0.5", 100)}, None) == "link eth0 at 100 Mbit/s"


def test_this_machine_has_no_loopback_interface_among_its_own() -> None:
    names = {name for _, name in socket.if_nameindex()}
    found = interfaces()
    assert found.keys() <= names - {"lo"}
    assert all(holding(address, found) == one for one in found.values() for address in one.addresses)


@pytest.mark.parametrize(
    ("address", "before", "after"),
    [("10.1.0.5", None, "ib0"), ("10.1.0.5", "eth1", "eth1"), ("127.0.0.2", None, None), ("10.9.0.5", None, None)],
)
def test_gloo_takes_the_interface_of_the_nodes_address(
    address: str, before: str | None, after: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", before or "")
    if before is None:
        monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setattr(module, "interfaces", lambda: NODE)
    monkeypatch.setattr(module, "node_address", lambda: address)
    choose_for_gloo()
    assert os.environ.get("GLOO_SOCKET_IFNAME") == after
