"""Members of IPv4 alone, of IPv6 alone, and of both, as real daemons in network namespaces."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from simulator.harness.netns import Namespaces, missing_for_namespaces, namespaces
from tests.e2e.swarm import Daemon, Machine, Swarm, certified

_MISSING = missing_for_namespaces()
pytestmark = [
    pytest.mark.real,
    pytest.mark.alone,
    pytest.mark.skipif(bool(_MISSING), reason=f"no network namespaces here: {_MISSING}"),
]

# Addresses that nobody calls private, as on the internet.
SUBNET, SUBNET_6 = "45.67.90", "2a0e:97c0:7::"
# About 25 s: the two that cannot call each other find a relay in their first rounds.
ALL_S = 40.0


def _give_ipv6(net: Namespaces, member: int) -> None:
    net.run(member, *f"ip -6 address add {SUBNET_6}{10 + member}/64 dev eth0 nodad".split())
    net.run(member, *["ip", "-6", "route", "add", "default", "dev", "eth0"])


def _all_certify(swarm: Swarm, *daemons: Daemon) -> None:
    def done() -> bool:
        # A daemon that has just been started makes its key first.
        peers = {daemon.peer for daemon in daemons}
        status = daemons[0].status()
        return status is not None and any(
            set(known.contributors) == peers for known in certified(status).values()
        )

    swarm.until(done, "a certificate counts every member", ALL_S)


@pytest.mark.slow
def test_members_of_either_family_certify_with_one_of_both(tmp_path: Path) -> None:
    with namespaces(3, SUBNET) as net:
        for member in (0, 1):
            net.run(member, *["ip", "route", "add", "default", "dev", "eth0"])
        net.run(2, *f"ip address del {net.host(2)}/24 dev eth0".split())
        for member in (0, 2):
            _give_ipv6(net, member)
        machines = [Machine("::", net.prefix(member)) for member in range(3)]
        with Swarm(tmp_path, machines=machines) as swarm:
            both = swarm.begin("both")
            four = swarm.join("four", both)
            run, addresses = both.now().run.run, both.now().you.addresses
            of_six = [address for address in addresses if address.startswith("/ip6/")]
            six = swarm.join_by(both.invite(run, of_six), "six")
            assert all("/ip6/" in one or "/127." in one for one in six.now().you.addresses)
            _all_certify(swarm, both, four, six)


_ONLY_443 = """
table ip firewall {
  chain out {
    type filter hook output priority filter; policy drop;
    oifname "lo" accept
    ct state established,related accept
    tcp dport 443 accept
  }
  chain in {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
  }
}
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nft") is None, reason="nft not installed (Debian: nftables)")
def test_members_whose_networks_let_only_port_443_out_certify(tmp_path: Path) -> None:
    rules = tmp_path / "only-443.nft"
    rules.write_text(_ONLY_443)
    with namespaces(3, SUBNET) as net:
        for member in range(3):
            net.run(member, *["ip", "route", "add", "default", "dev", "eth0"])
        for member in (1, 2):
            net.run(member, "nft", "-f", str(rules))
        machines = [Machine("::", net.prefix(member)) for member in range(3)]
        with Swarm(tmp_path, machines=machines) as swarm:
            at_443 = {"listen_host": "::", "listen_port": 443, "one_port": True}
            public = swarm.begin("public", network=at_443)
            shut = [swarm.join(name, public) for name in ("one", "two")]
            _all_certify(swarm, public, *shut)
