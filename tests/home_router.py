"""A home behind a router that speaks UPnP and NAT-PMP, in network namespaces.

    outside 45.67.89.10 ── net ── router: wan 45.67.89.101, lan 192.168.1.1 ── home 192.168.1.10

The router drops what nobody asked for, as home routers do. It runs the real miniupnpd. Nothing is
made outside of the namespaces, and they vanish with the processes that hold them.

The WAN must be one that nobody calls private: 203.0.113.0/24 is reserved for documentation, and
miniupnpc refuses it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simulator.harness.netns import missing_for_namespaces

OUTSIDE, WAN = "45.67.89.10", "45.67.89.101"
LAN, HOME = "192.168.1.1", "192.168.1.10"
OUTSIDE_6, WAN_6 = "2a0e:97c0:7:ff::10", "2a0e:97c0:7:ff::101"
LAN_6, HOME_6 = "2a0e:97c0:7:1::1", "2a0e:97c0:7:1::10"
MINIUPNPD = "/usr/sbin/miniupnpd"
# The shortest lease of miniupnpd's own checks.
COMMAND_S = 10.0

_RULES = """
table inet filter {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "lan" oifname "wan" accept
    jump miniupnpd
  }
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    iifname != "wan" accept
  }
  chain miniupnpd { }
  chain prerouting { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    jump postrouting_miniupnpd
    oifname "wan" masquerade
  }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
}
"""


def missing_for_router() -> str:
    """Why there can be no such router on this machine; empty when there can."""
    if reason := missing_for_namespaces():
        return reason
    if shutil.which("nft") is None:
        return "nft not installed (Debian: nftables)"
    return "" if Path(MINIUPNPD).exists() else "miniupnpd not installed"


class HomeRouter:
    """The namespaces and the router's process. `home_router` makes it."""

    def __init__(self, folder: Path, wan: str) -> None:
        self._folder = folder
        self.wan = wan
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._daemon: subprocess.Popen[bytes] | None = None

    def prefix(self, where: str) -> tuple[str, ...]:
        """The words that make a command run at "outside", "router" or "home"."""
        return ("nsenter", f"--net=/proc/{self._holders[where].pid}/ns/net", "--")

    def run(self, where: str, *command: str, given: str = "", check: bool = True) -> str:
        """Run a short command there, and return what it printed."""
        done = subprocess.run(
            [*self.prefix(where), *command],
            input=given,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert not check or not done.returncode, f"{command}: {done.stderr}"
        return done.stdout

    def mappings(self) -> str:
        """What the router maps now, in the words of nftables."""
        return self.run("router", "nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd")

    def pinholes(self) -> str:
        """What the router lets in now, in the words of nftables."""
        return self.run("router", "nft", "list", "chain", "inet", "filter", "miniupnpd")

    def give_ipv6(self) -> None:
        """Give every machine an IPv6 address. The router's firewall drops calls from outside."""
        for where, device, address in (
            ("outside", "eth0", f"{OUTSIDE_6}/64"),
            ("router", "wan", f"{WAN_6}/64"),
            ("router", "lan", f"{LAN_6}/64"),
            ("home", "eth0", f"{HOME_6}/64"),
        ):
            self.run(where, *f"ip -6 address add {address} dev {device} nodad".split())
        self.run("router", "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
        self.run("home", *f"ip -6 route add default via {LAN_6}".split())
        self.run("outside", *f"ip -6 route add default via {WAN_6}".split())

    def start(self, *options: str) -> None:
        """Start the router's service."""
        config = self._folder / "miniupnpd.conf"
        config.write_text(
            "\n".join(
                (
                    "ext_ifname=wan",
                    "listening_ip=lan",
                    "enable_upnp=yes",
                    "enable_natpmp=yes",
                    "secure_mode=yes",
                    "system_uptime=yes",
                    "upnp_table_name=filter",
                    "upnp_nat_table_name=filter",
                    f"lease_file={self._folder / 'leases'}",
                    "allow 1024-65535 192.168.1.0/24 1024-65535",
                    *options,
                )
            )
            + "\n"
        )
        # A router that restarts has forgotten its leases and its rules.
        (self._folder / "leases").unlink(missing_ok=True)
        for chain in ("miniupnpd", "prerouting_miniupnpd", "postrouting_miniupnpd"):
            self.run("router", "nft", "flush", "chain", "inet", "filter", chain)
        with (self._folder / "miniupnpd.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [
                    *self.prefix("router"),
                    MINIUPNPD,
                    "-d",
                    "-f",
                    str(config),
                    "-P",
                    str(self._folder / "pid"),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def stop(self) -> None:
        """End the router's service."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def log(self) -> str:
        return (self._folder / "miniupnpd.log").read_text(errors="replace")

    # ---------------------------------------------------------------- setup

    def make(self) -> None:
        for where in ("net", "outside", "router", "home"):
            holder = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "echo in; exec cat >/dev/null"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            self._holders[where] = holder
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"in\n"
            self.run(where, "ip", "link", "set", "lo", "up")
        self.run("net", "ip", "link", "add", "hub", "type", "bridge")
        self.run("net", "ip", "link", "set", "hub", "up")
        for where, device in (("outside", "eth0"), ("router", "wan")):
            self._cable("net", f"to-{where}"[:15], where, device)
            self.run("net", "ip", "link", "set", f"to-{where}"[:15], "master", "hub")
        self._cable("router", "lan", "home", "eth0")
        network = self.wan.rpartition(".")[0]
        for where, device, address, route in (
            ("outside", "eth0", f"{network}.10/24", f"{network}.1"),
            ("router", "wan", f"{self.wan}/24", f"{network}.1"),
            ("router", "lan", f"{LAN}/24", ""),
            ("home", "eth0", f"{HOME}/24", LAN),
        ):
            self.run(where, "ip", "address", "add", address, "dev", device)
            if route:
                self.run(where, "ip", "route", "add", "default", "via", route)
        self.run("router", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.run("router", "nft", "-f", "-", given=_RULES)

    def _cable(self, first: str, device: str, second: str, other: str) -> None:
        pid = str(self._holders[second].pid)
        words = f"ip link add {device} type veth peer name {other} netns {pid}"
        self.run(first, *words.split())
        self.run(first, "ip", "link", "set", device, "up")
        self.run(second, "ip", "link", "set", other, "up")

    def close(self) -> None:
        self.stop()
        for holder in self._holders.values():
            for pipe in (holder.stdin, holder.stdout):
                if pipe is not None:
                    pipe.close()
        for holder in self._holders.values():
            holder.wait(COMMAND_S)


@contextmanager
def home_router(folder: Path, wan: str = WAN) -> Iterator[HomeRouter]:
    """Make the home, the router and the internet; the router's service is not started."""
    assert os.geteuid() == 0
    made = HomeRouter(folder, wan)
    try:
        made.make()
        yield made
    finally:
        made.close()
