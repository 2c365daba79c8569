"""A newcomer whose first holder cannot be called catches up from the others."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from simulator.harness.netns import missing_for_namespaces, namespaces
from tests.e2e.swarm import Machine, Swarm

_MISSING = missing_for_namespaces()
pytestmark = [
    pytest.mark.real,
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(_MISSING), reason=f"no network namespaces here: {_MISSING}"),
    pytest.mark.skipif(shutil.which("nft") is None, reason="nft not installed (Debian: nftables)"),
]

SUBNET = "45.67.91"
NEWCOMERS = 10
# From the moment at which the newcomer listens.
CAUGHT_UP_S = 15.0
_NOBODY_IN = """
table ip firewall {
  chain in {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
  }
}
"""


def test_ten_newcomers_catch_up_though_their_first_holder_is_silent(tmp_path: Path) -> None:
    rules = tmp_path / "nobody-in.nft"
    rules.write_text(_NOBODY_IN)
    took: list[float] = []
    with namespaces(3, SUBNET) as net:
        for member in range(3):
            net.run(member, *["ip", "route", "add", "default", "dev", "eth0"])
        net.run(1, "nft", "-f", str(rules))
        places = [0, 1, *[2] * NEWCOMERS]
        machines = [Machine("::", net.prefix(member)) for member in places]
        with Swarm(tmp_path, round_s=3.0, machines=machines) as swarm:
            public = swarm.begin("public")
            silent = swarm.join("silent", public)
            swarm.until_round(2, public, silent)
            entries = (silent.now().you.addresses[0], public.now().you.addresses[0])
            token = public.invite(public.now().run.run, entries)
            for number in range(NEWCOMERS):
                newcomer = swarm.join_by(token, f"newcomer-{number}")
                newcomer.now()
                listens = time.monotonic()
                at = public.now().run.number
                swarm.until_round(at, newcomer, limit_s=CAUGHT_UP_S)
                took.append(time.monotonic() - listens)
                newcomer.kill()
                assert newcomer.wait(10.0)
    print("caught up after", ", ".join(f"{seconds:.1f} s" for seconds in took))
