"""A node's network interfaces: which one leads to the other nodes, and how fast its link is."""

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import ray.util

# By torch's backend: what it takes from the environment, where it is not to choose by itself.
CHOICE = {"gloo": "GLOO_SOCKET_IFNAME", "nccl": "NCCL_SOCKET_IFNAME"}


@dataclass(frozen=True, kw_only=True)
class Interface:
    """One that is up and has an address, other than the loopback interface.

    Attributes:
        name: by the system, as "eth0".
        addresses: IPv4 and IPv6.
        megabits: a second, of its link; 0 = the system does not know, as on virtual machines.
    """

    name: str
    addresses: frozenset[str]
    megabits: int


def interfaces() -> dict[str, Interface]:
    """Those of this machine, by name."""
    import psutil  # within: it is Ray's own copy, importable once Ray is imported

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
    """Of this process's node, by which Ray's other nodes know it."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def holding(address: str, among: Mapping[str, Interface]) -> Interface | None:
    """Return the interface that has an address; None where it is a loopback address, or nobody's."""
    return next((interface for interface in among.values() if address in interface.addresses), None)


def choose_for_gloo() -> None:
    """Have gloo take the interface by which Ray's nodes know each other; a choice that is in the environment stays.

    By itself gloo takes the address of the host's name. Debian's /etc/hosts makes that a loopback address, and where a
    node has several interfaces it may be of any: the other nodes would wait for an answer in vain. nccl looks for
    interfaces by itself, the fast ones first.
    """
    interface = holding(node_address(), interfaces())
    if interface is not None:
        os.environ.setdefault(CHOICE["gloo"], interface.name)


def link_in_words(backend: str) -> str:
    """This node's link to the others, and what else there is, such as "eth0 at 10 Gbit/s, not ib0".

    Args:
        backend: torch's, "gloo" or "nccl".
    """
    return described(node_address(), interfaces(), os.environ.get(CHOICE.get(backend, "")))


def described(address: str, among: Mapping[str, Interface], chosen: str | None) -> str:
    """See :func:`link_in_words`.

    Args:
        address: of the node.
        among: its interfaces.
        chosen: what the environment says; a name, or what the backend makes of it.
    """
    if chosen is not None and chosen not in among:
        return f"link {chosen}, as the environment says"
    interface = among[chosen] if chosen is not None else holding(address, among)
    if interface is None:
        return "link lo" if ipaddress.ip_address(address).is_loopback else f"no interface has {address}"
    others = sorted(among.keys() - {interface.name})
    return f"link {interface.name} {_speed(interface.megabits)}" + (f", not {', '.join(others)}" if others else "")


def _speed(megabits: int) -> str:
    if megabits <= 0:
        return "of unknown speed"
    return f"at {megabits / 1000:g} Gbit/s" if megabits >= 1000 else f"at {megabits} Mbit/s"
