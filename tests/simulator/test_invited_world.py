"""A run by invitation in virtual time: who gets in, and what a revocation does to the rounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from msgspec.structs import replace

from protocol.identity import PeerId, Signer
from protocol.journal import InputRefused, RoundCertified, Trouble
from protocol.membership.invitation import Grant, OwnInvitation, SignedGrant, make_proof, sign_grant
from protocol.messages.envelope import sign
from protocol.messages.membership import Revocation
from protocol.rules.versions import RULES_4
from protocol.run.manifest import Manifest, RoundRules
from simulator.fakes.clock import run_virtual
from simulator.world.world import World

OWNER, FRIEND, OTHER, STRANGER = range(4)
SECRET = bytes(range(32))
FAR_FUTURE_S = 1 << 40


def world_of(nodes: int, uses: int, *invited: int, expires_s: int = FAR_FUTURE_S) -> World:
    """Return a world whose node `OWNER` invited some of the others by one invitation."""
    manifest = Manifest(
        name="by invitation",
        task="quadratic",
        rules=RULES_4,
        round=RoundRules(seconds=5.0, ready_s=1.0),
    )
    world = World(seed=5, nodes=nodes, manifest=manifest, owner=OWNER)
    grant = granted(world, uses, expires_s)
    for index in invited:
        world.nodes[index].invitation = OwnInvitation(
            proof=make_proof(grant, SECRET, world.manifest.run, world.nodes[index].peer)
        )
    return world


def granted(world: World, uses: int, expires_s: int) -> SignedGrant:
    grant = Grant(
        key=Signer(SECRET).public_key,
        serial=1,
        uses=uses,
        voters=uses,
        expires_s=expires_s,
        certificate=world.manifest.run,
    )
    return sign_grant(world.nodes[OWNER].signer, world.manifest.run, grant)


def played(world: World, story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with world.running():
            await story()

    run_virtual(main, seed=5)
    assert world.invariants.broken == []


def voters(world: World) -> set[PeerId]:
    state = world.nodes[OWNER].state
    return set(state.record.voters) if state is not None and state.record is not None else set()


def members_of_rounds(world: World, since: int = 0) -> set[PeerId]:
    return {
        peer
        for event in world.events(RoundCertified, node=OWNER)
        if isinstance(event, RoundCertified) and event.number > since
        for peer in event.members
    }


def test_an_invited_friend_certifies_and_votes_and_a_stranger_does_neither() -> None:
    world = world_of(4, 1, FRIEND)
    peers = [node.peer for node in world.nodes]

    async def story() -> None:
        world.start(OWNER, FRIEND, STRANGER)
        await world.until(lambda: world.number(OWNER) >= 6, 120.0, "round 6")

    played(world, story)
    assert voters(world) == {peers[OWNER], peers[FRIEND]}
    assert members_of_rounds(world) == {peers[OWNER], peers[FRIEND]}
    refusals = [
        event
        for event in world.events(InputRefused)
        if isinstance(event, InputRefused) and event.reason == "not_admitted"
    ]
    assert {event.peer for event in refusals} == {peers[STRANGER]}
    assert "hypergpud start --join INVITATION" in refusals[0].detail
    told = [event for event in world.events(Trouble, node=STRANGER) if isinstance(event, Trouble)]
    assert "has no invitation to this run" in told[-1].message


def test_one_use_admits_one_of_two_friends() -> None:
    world = world_of(3, 1, FRIEND, OTHER)
    peers = [node.peer for node in world.nodes]

    async def story() -> None:
        world.start()
        await world.until(lambda: world.number(OWNER) >= 6, 120.0, "round 6")

    played(world, story)
    assert len(members_of_rounds(world)) == 2
    assert len(voters(world)) == 2
    details = {
        event.detail
        for event in world.events(InputRefused, node=OWNER)
        if isinstance(event, InputRefused)
    }
    assert any("others had its only use" in detail for detail in details), details
    told = [event for event in world.events(Trouble) if isinstance(event, Trouble)]
    assert {event.code for event in told} == {"NOT_ADMITTED"}
    assert "takes no part in the rounds: others had its only use" in told[-1].message
    engine = world.nodes[OWNER].engine
    assert engine is not None
    assert set(engine.owner_records.used.values()) == {1}
    assert peers[OWNER] in members_of_rounds(world)


def test_a_revoked_voter_is_out_at_once_and_holds_up_nobody() -> None:
    """Of two voters the revoked one signs nothing any more; the owner goes on with another."""
    world = world_of(3, 2, FRIEND, OTHER)
    peers = [node.peer for node in world.nodes]
    revoked_at: list[int] = []

    async def story() -> None:
        world.start(OWNER, FRIEND)
        await world.until(lambda: len(voters(world)) == 2, 120.0, "the friend votes")
        revocation = sign(
            world.nodes[OWNER].signer, world.manifest.run, Revocation(subject=peers[FRIEND])
        )
        engine = world.nodes[OWNER].engine
        assert engine is not None
        engine.owner_records.add(revocation)
        world.start(OTHER)
        before = world.number(OWNER)
        revoked_at.append(before + 1)
        await world.until(lambda: world.number(OWNER) >= before + 4, 60.0, "rounds go on")

    played(world, story)
    assert peers[FRIEND] not in voters(world)
    assert members_of_rounds(world, revoked_at[0]) == {peers[OWNER], peers[OTHER]}


def test_a_member_that_comes_late_to_the_only_voters_view_follows_it() -> None:
    """The only voter leads every view, so no other leader tells the member which view it is."""
    world = world_of(2, 1, FRIEND)

    async def story() -> None:
        world.start()
        await world.until(lambda: world.number(FRIEND) >= 1, 120.0, "round 1")
        number = world.number(FRIEND)
        world.nodes[FRIEND].shift(9.3)
        await world.until(lambda: world.number(FRIEND) >= number + 1, 40.0, "the next round")

    played(world, story)


def test_an_expired_invitation_admits_nobody() -> None:
    world = world_of(2, 1, FRIEND, expires_s=1)

    async def story() -> None:
        world.start()
        await world.until(
            lambda: any(
                isinstance(event, InputRefused) and "invitation expired" in event.detail
                for event in world.events(InputRefused, node=OWNER)
            ),
            60.0,
            "the refusal",
        )

    played(world, story)
    assert members_of_rounds(world) == set()


def test_a_friend_that_hears_only_other_histories_follows_none_and_says_so() -> None:
    """Story trust-joiner-eclipsed: the certificate of the invitation is in no history here."""
    world = world_of(3, 2, FRIEND, OTHER)
    theirs = bytes([7]) * 32
    friend = world.nodes[FRIEND]
    friend.invitation = replace(friend.invitation, required=theirs)

    async def story() -> None:
        world.start(OWNER, OTHER)
        await world.until(lambda: world.number(OWNER) >= 3, 120.0, "round 3")
        world.start(FRIEND)
        await trio.sleep(90.0)
        assert world.number(FRIEND) == 0

    played(world, story)
    told = [event for event in world.events(Trouble, node=FRIEND) if isinstance(event, Trouble)]
    others = [event.message for event in told if event.code == "OTHER_HISTORY"]
    assert len(others) == 1
    assert f"No peer that this node hears has certificate {theirs.hex()[:12]}" in others[0]
