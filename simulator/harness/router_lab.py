"""Homes behind routers and public hosts, in network namespaces with nftables.

    internet (bridge) ── public host 0     203.0.113.10 ...
                      ── router 0          wan 203.0.113.<next>, lan 192.168.1.1
                                           ── home (0, 0)  192.168.1.10, (0, 1) 192.168.1.11 ...

A router lets its homes call out and drops what comes from outside without a word, as home routers
do. Two kinds: "cone" keeps the port of a socket for every destination, "symmetric" takes a random
one for each connection. `netns.py` says how namespaces are held and removed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

from protocol.errors import UserError
from simulator.harness.netns import COMMAND_S, Namespaces, missing_for_namespaces

SUBNET = "203.0.113"
# Addresses that nobody calls private. Router n has the network <PREFIX_6><n + 1>::/64 inside.
OUTSIDE_6 = "2a0e:97c0:7:ff::"
PREFIX_6 = "2a0e:97c0:7:"
FIRST_HOME = 10
RouterKind = Literal["cone", "symmetric"]
_MASQUERADE: dict[RouterKind, str] = {
    "cone": "masquerade",
    "symmetric": "masquerade random,fully-random",
}


def missing_for_routers() -> str:
    """Why there can be no routers on this machine; empty when there can."""
    if shutil.which("nft") is None:
        return "nft not installed (Debian: nftables)"
    return missing_for_namespaces()


class Router(NamedTuple):
    """One router and its homes.

    `only_port` lets homes call nothing but this TCP port outside. With `ipv6`, homes have IPv6
    addresses of their own, and the router drops calls to them from outside.
    """

    kind: RouterKind = "cone"
    homes: int = 1
    lan: str = "192.168.1"
    only_port: int = 0
    ipv6: bool = False


class Place(NamedTuple):
    """A machine: its address in its own network, and the words that run a command there."""

    host: str
    prefix: tuple[str, ...]

    def run(self, *command: str, text: str = "") -> str:
        """Run a short command there. Raises `UserError("NETNS")`."""
        done = subprocess.run(
            [*self.prefix, *command],
            input=text,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        if done.returncode:
            raise UserError("NETNS", f"{' '.join(command)} failed.", why=done.stderr.strip())
        return done.stdout


class RouterLab(Namespaces):
    """The namespaces of one lab. `router_lab` makes it."""

    def __init__(self, publics: int, routers: Sequence[Router]) -> None:
        super().__init__(SUBNET)
        self._publics, self._routers = publics, tuple(routers)
        self._homes: dict[tuple[int, int], Place] = {}

    def build(self) -> None:
        """Make everything."""
        self.make(self._publics + len(self._routers))
        for member in range(self._publics + len(self._routers)):
            self.run(member, "ip", "route", "add", "default", "dev", "eth0")
        for number, router in enumerate(self._routers):
            self._make_router(number, router)
        if any(router.ipv6 for router in self._routers):
            self._give_ipv6()

    def public(self, number: int) -> Place:
        """A host that everybody can call."""
        return Place(self.host(number), self.prefix(number))

    def router(self, number: int) -> Place:
        """A router; its address is the one outside."""
        return Place(self.host(self._publics + number), self.prefix(self._publics + number))

    def home(self, router: int, number: int = 0) -> Place:
        """A host behind a router."""
        return self._homes[router, number]

    def change_wan(self, number: int, last: int) -> None:
        """Give a router another address outside, and forget its connections, as a provider does.

        `last` is the last part of the new address. The kernel drops what was translated with the
        address that goes.
        """
        place = self.router(number)
        # In this order: with the first address of a network, the kernel removes all further ones.
        place.run("ip", "address", "del", f"{place.host}/24", "dev", "eth0")
        place.run("ip", "address", "add", f"{SUBNET}.{last}/24", "dev", "eth0")
        place.run("ip", "route", "replace", "default", "dev", "eth0")

    def _give_ipv6(self) -> None:
        """Give every machine IPv6 addresses and routes."""
        members = self._publics + len(self._routers)
        inside = {self._publics + n: f"{PREFIX_6}{n + 1}::" for n in range(len(self._routers))}
        for member in range(members):
            own = f"{OUTSIDE_6}{FIRST_HOME + member}/64"
            self.run(member, *f"ip -6 address add {own} dev eth0 nodad".split())
            self.run(member, *["ip", "-6", "route", "add", "default", "dev", "eth0"])
            for router, network in inside.items():
                if router != member:
                    via = f"{OUTSIDE_6}{FIRST_HOME + router}"
                    self.run(member, *f"ip -6 route add {network}/64 via {via}".split())
        for member, network in inside.items():
            self.run(member, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
            self.run(member, *f"ip -6 address add {network}1/64 dev lan nodad".split())
        for (router, number), home in self._homes.items():
            network = inside[self._publics + router]
            own = f"{network}{FIRST_HOME + number}/64"
            home.run(*f"ip -6 address add {own} dev eth0 nodad".split())
            home.run(*f"ip -6 route add default via {network}1".split())

    def _make_router(self, number: int, router: Router) -> None:
        place = self.router(number)
        place.run("ip", "link", "add", "lan", "type", "bridge")
        place.run("ip", "address", "add", f"{router.lan}.1/24", "dev", "lan")
        place.run("ip", "link", "set", "lan", "up")
        place.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        for home in range(router.homes):
            self._homes[number, home] = self._make_home(place, router, home)
        place.run("nft", "-f", "-", text=_rules(router))

    def _make_home(self, router: Place, given: Router, number: int) -> Place:
        inside = self._hold()
        home = Place(
            f"{given.lan}.{FIRST_HOME + number}",
            ("nsenter", f"--net=/proc/{inside}/ns/net", "--"),
        )
        cable = ("type", "veth", "peer", "name", "eth0", "netns", str(inside))
        router.run("ip", "link", "add", f"lan{number}", *cable)
        router.run("ip", "link", "set", f"lan{number}", "master", "lan", "up")
        home.run("ip", "address", "add", f"{home.host}/24", "dev", "eth0")
        home.run("ip", "link", "set", "eth0", "up")
        home.run("ip", "link", "set", "lo", "up")
        home.run("ip", "route", "add", "default", "via", f"{given.lan}.1")
        return home


@contextmanager
def router_lab(publics: int, *routers: Router) -> Iterator[RouterLab]:
    """Make public hosts and routers with their homes.

    Raises `UserError("NETNS")` where that is impossible.
    """
    if reason := missing_for_routers():
        raise UserError("NETNS", "Cannot make routers.", why=reason, fix="run as root, with nft")
    lab = RouterLab(publics, routers)
    try:
        lab.build()
        yield lab
    finally:
        lab.close()


def _rules(router: Router) -> str:
    """The nftables rules of a router."""
    out = f"tcp dport {router.only_port} accept" if router.only_port else "accept"
    return f"""flush ruleset
table ip nat {{
  chain post {{ type nat hook postrouting priority srcnat; oifname "eth0" {
        _MASQUERADE[router.kind]
    }; }}
  chain pre {{ type nat hook prerouting priority dstnat; }}
}}
table inet filter {{
  chain forwarded {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct status dnat accept
    iifname "lan" oifname "eth0" {out}
  }}
  chain own {{
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    iifname != "eth0" accept
  }}
}}
"""
