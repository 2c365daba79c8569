"""A run by invitation, as people live it: one token in, a restart without it, and out again."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from tests.e2e.swarm import RUN, Daemon, Swarm, hypergpud

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

# A revocation travels in seconds; a busy machine takes a while to end a worker.
LEAVES_S = 40.0


def invitation_of(owner: Daemon, *options: str) -> str:
    """Return the token that `hypergpud invite` prints."""
    answer = hypergpud("invite", *options, home=owner.home)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()[-1]


def refusal(home: Path, *arguments: str) -> str:
    """Start a node that must not start; return what it printed."""
    answer = hypergpud("start", *arguments, home=home)
    assert answer.returncode == 2, answer.stdout + answer.stderr
    return answer.stderr


def test_a_friend_joins_by_one_token_and_leaves_by_one_command(tmp_path: Path) -> None:
    with Swarm(tmp_path, run="rules = 4\n" + RUN) as swarm:
        owner = swarm.begin()
        owner.now()
        swarm.until(lambda: "a friend joins with" in owner.log(), "the owner is ready")
        token = invitation_of(owner)
        assert f"hypergpud start --join {token}" in owner.log(), "start prints the same line"

        friend = swarm.join_by(token, "friend")
        swarm.until_round(2, owner, friend)
        swarm.until(lambda: owner.now().you.rounds_counted, "the owner's work counts")
        swarm.until(lambda: invitation_of(owner) != token, "a used invitation is not printed again")
        swarm.stop(friend)
        swarm.restart_without_arguments(friend)
        before = owner.now().run.number
        swarm.until_round(before + 2, owner, friend)

        address = owner.now().you.addresses[0]
        stranger = refusal(tmp_path / "stranger", "--join", address)
        assert "admits only peers that its owner invited" in stranger
        assert "hypergpud start --join INVITATION" in stranger
        assert "cut off" in refusal(tmp_path / "cut", "--join", token[:-20])
        changed = token[:60] + ("2" if token[60] != "2" else "3") + token[61:]
        assert "garbled" in refusal(tmp_path / "garbled", "--join", changed)

        peer = friend.now().you.peer
        assert "Only the owner" in hypergpud("revoke", peer, home=friend.home).stderr
        out = hypergpud("revoke", peer[-8:], home=owner.home)
        assert "Revoked" in out.stdout, out.stderr
        assert friend.wait(LEAVES_S)
        assert re.search(r"The owner of the run 'small-digits' revoked this node", friend.log())
        again = hypergpud("start", home=friend.home)
        assert (again.returncode, "REVOKED" in again.stderr) == (1, True)
        swarm.stop(owner)
        # The owner invites also while its node does not run.
        offline = invitation_of(owner, "--uses", "2")
        shown = hypergpud("invite", "--json", home=owner.home)
        assert msgspec.json.decode(shown.stdout)["uses"] == 1
        assert offline.startswith("hgpu1")
