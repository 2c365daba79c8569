"""Who may take part in a round of rules 4, and the sentence for everybody else."""

from __future__ import annotations

from typing import Literal

import pytest

from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.membership.admission import admission_fault, admitted_together, check_members
from protocol.membership.invited import Invited
from tests.protocol.membership.histories import PEERS, History, manifest_of

FOUNDERS = PEERS[:2]
FRIEND, OTHER, THIRD = PEERS[30:33]
ONE_USE = Invited(name="one use", uses=1)
TWO_USES = Invited(name="two uses", uses=2)


def fault(run: History, peer: PeerId, invitation: Invited | None = None) -> str:
    return admission_fault(run.record, run.manifest, peer, invitation)


@pytest.mark.parametrize("policy", ["open", "allowlist"])
def test_other_policies_admit_their_peers(
    policy: Literal["open", "allowlist"],
) -> None:
    allowed = (FRIEND,) if policy == "allowlist" else ()
    run = History(manifest_of(FOUNDERS, policy, allowed=allowed))
    assert fault(run, FOUNDERS[0]) == fault(run, FRIEND) == ""
    assert bool(fault(run, OTHER)) == (policy == "allowlist")
    assert fault(run, OTHER, ONE_USE) == ""


def test_a_run_by_invitation_says_how_to_get_in() -> None:
    run = History(manifest_of(FOUNDERS, "invite"))
    assert fault(run, FOUNDERS[0]) == ""
    assert fault(run, FRIEND, ONE_USE) == ""
    assert "hypergpud start --join INVITATION" in fault(run, FRIEND)


def test_an_admitted_peer_needs_no_invitation_again() -> None:
    run = History(manifest_of(FOUNDERS, "invite"))
    run.certify((*FOUNDERS, FRIEND), invited={FRIEND: ONE_USE})
    assert fault(run, FRIEND) == fault(run, FRIEND, ONE_USE) == ""
    assert "others had its only use" in fault(run, OTHER, ONE_USE)
    run.certify((*FOUNDERS, OTHER, THIRD), invited={OTHER: TWO_USES, THIRD: TWO_USES})
    assert "others had all its 2 uses" in fault(run, PEERS[20], TWO_USES)


def test_a_revoked_peer_takes_part_in_no_run() -> None:
    for policy in ("invite", "open"):
        run = History(manifest_of(FOUNDERS, policy))  # type: ignore[arg-type]
        run.certify((*FOUNDERS, FRIEND), invited={FRIEND: ONE_USE}, revoked=[FRIEND])
        assert "revoked" in fault(run, FRIEND)
        assert "revoked" in fault(run, FRIEND, TWO_USES)
        with pytest.raises(PeerFault, match="revoked"):
            check_members(run.record, run.manifest, (*FOUNDERS, FRIEND), {})


def test_a_revoked_invitation_admits_nobody_and_keeps_its_peers() -> None:
    run = History(manifest_of(FOUNDERS, "invite"))
    run.certify((*FOUNDERS, FRIEND), invited={FRIEND: TWO_USES})
    run.certify((*FOUNDERS, FRIEND), revoked=[TWO_USES.name])
    assert fault(run, FRIEND) == ""
    assert "revoked the invitation" in fault(run, OTHER, TWO_USES)


def test_one_plan_lists_as_many_peers_as_an_invitation_has_uses() -> None:
    run = History(manifest_of(FOUNDERS, "invite"))
    invited = {OTHER: ONE_USE, FRIEND: ONE_USE, THIRD: TWO_USES}
    peers = (THIRD, OTHER, *FOUNDERS, FRIEND)
    together = admitted_together(run.record, run.manifest, peers, invited)
    first, second = sorted((FRIEND, OTHER))
    assert together == tuple(peer for peer in peers if peer != second)
    check_members(run.record, run.manifest, together, invited)
    with pytest.raises(PeerFault, match="exceeds the uses") as caught:
        check_members(run.record, run.manifest, peers, invited)
    assert caught.value.reason == "not_admitted"
    run.certify(together, invited={peer: one for peer, one in invited.items() if peer in together})
    assert fault(run, first) == ""
    assert "others had its only use" in fault(run, second, ONE_USE)
