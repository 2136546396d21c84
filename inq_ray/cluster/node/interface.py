"""A node's network interfaces: which one connects it to the other nodes, and the speed of its link."""

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import ray.util

# Environment variables, by torch's backend, that set the interface.
CHOICE = {"gloo": "GLOO_SOCKET_IFNAME", "nccl": "NCCL_SOCKET_IFNAME"}


@dataclass(frozen=True, kw_only=True)
class Interface:
    """A network interface that is up and has an address, other than the loopback interface.

    Attributes:
        name: The system's name, such as "eth0".
        addresses: IPv4 and IPv6 addresses.
        megabits: Speed of its link, Mbit/s; 0 = unknown, as on virtual machines.
    """

    name: str
    addresses: frozenset[str]
    megabits: int


def interfaces() -> dict[str, Interface]:
    """Return the interfaces of this machine, by name."""
    import psutil  # imported here: it is Ray's own copy, importable once Ray is imported

    states = psutil.net_if_stats()
    found = {}
    for name, given in psutil.net_if_addrs().items():
        addresses = frozenset(
            entry.address.partition("%")[0] for entry in given if entry.family in (socket.AF_INET, socket.AF_INET6)
        )
        is_up = name in states and states[name].isup
        if is_up and addresses and not any(ipaddress.ip_address(address).is_loopback for address in addresses):
            found[name] = Interface(name=name, addresses=addresses, megabits=states[name].speed)
    return found


def node_address() -> str:
    """Return the address of this process's node, by which Ray's other nodes know it."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def holding(address: str, among: Mapping[str, Interface]) -> Interface | None:
    """Return the interface that has an address; None for a loopback address, or one of no interface."""
    return next((interface for interface in among.values() if address in interface.addresses), None)


def choose_for_gloo() -> None:
    """Make gloo use the interface by which Ray's nodes know each other, unless the environment sets one.

    By default gloo uses the address of the host's name. Debian's /etc/hosts makes that a loopback address, and on a
    node with several interfaces it may be any of them: the other nodes would wait for an answer in vain. nccl searches
    for interfaces itself, the fast ones first.
    """
    interface = holding(node_address(), interfaces())
    if interface is not None:
        os.environ.setdefault(CHOICE["gloo"], interface.name)


def link_in_words(backend: str) -> str:
    """Return this node's link to the others, and its other interfaces, such as "eth0 at 10 Gbit/s, not ib0".

    Args:
        backend: torch's backend, "gloo" or "nccl".
    """
    return described(node_address(), interfaces(), os.environ.get(CHOICE.get(backend, "")))


def described(address: str, among: Mapping[str, Interface], chosen: str | None) -> str:
    """Return the text of :func:`link_in_words`.

    Args:
        address: Address of the node.
        among: Its interfaces.
        chosen: Value of the environment variable: a name, or a pattern of the backend.
    """
    if chosen is not None and chosen not in among:
        return f"link {chosen}, set by the environment"
    interface = among[chosen] if chosen is not None else holding(address, among)
    if interface is None:
        return "link lo" if ipaddress.ip_address(address).is_loopback else f"no interface has {address}"
    others = sorted(among.keys() - {interface.name})
    return f"link {interface.name} {_speed(interface.megabits)}" + (f", not {', '.join(others)}" if others else "")


def _speed(megabits: int) -> str:
    if megabits <= 0:
        return "of unknown speed"
    return f"at {megabits / 1000:g} Gbit/s" if megabits >= 1000 else f"at {megabits} Mbit/s"
