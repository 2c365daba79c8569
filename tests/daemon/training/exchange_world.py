"""A few members that average once over a fake network, each with its real exchange."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
import trio

from daemon.services.training.native.exchange.all_reduce import AllReduce
from daemon.services.training.native.exchange.buffers import Buffers
from daemon.services.training.native.exchange.bulk_receiver import serve_bulk
from daemon.services.training.native.exchange.bulk_sender import BulkSender
from daemon.services.training.native.exchange.data_plane import fingerprint_of
from daemon.services.training.native.exchange.exchange_context import (
    ExchangeContext,
    ExchangePorts,
)
from protocol.averaging.inclusion import counted_reason
from protocol.averaging.plan_sum import PlanSum
from protocol.averaging.vector_layout import Vector, chunk_count, element_range, share_out
from protocol.codec import chunk_bytes, codec_named
from protocol.contribution.offer import Offer
from protocol.digest import Digest, digest, leaves_of, levels_of, merkle_root, root_of
from protocol.identity import PeerId, Signer
from protocol.messages.base import Signed
from protocol.messages.envelope import payload_of
from protocol.messages.offer import Ready
from protocol.messages.round import Inclusion, Plan, TrustPlan
from protocol.messages.sum_terms import SumTerms
from protocol.planning.plan import OpenPlan
from protocol.ports.byte_stream import ByteStream
from protocol.round.events import Event
from protocol.rules.versions import CURRENT_RULES, RULES_4
from simulator.fakes.link import LinkModel, same_link
from simulator.fakes.network import FakeNetwork
from simulator.fakes.swarm import FakeSwarm

T = TypeVar("T")

RUN = digest(b"exchange")
# A member's uplink moves its parts in about 0.2 s.
LINK = LinkModel(latency_s=0.02, bandwidth_bps=50e6)


async def at_once(work: Callable[[], T], /) -> T:
    """Run numeric work in its turn of the event loop."""
    await trio.lowlevel.checkpoint()
    return work()


class Member:
    """One member: its offer, and what its exchange found."""

    def __init__(self, network: FakeNetwork, key: bytes, vector: Vector, codec: str) -> None:
        self.network, self.signer = network, Signer(key)
        self.codec = codec_named(codec)
        self.parameters = vector.size
        encoded = self.codec.encode(vector)
        tree = levels_of(leaves_of(encoded, chunk_bytes(self.codec)))
        self.offer = Offer(seq=1, weight=1, encoded=encoded, tree=tree, digest=root_of(tree))
        self.refusals: list[str] = []
        self.events: list[Event] = []
        self.exchange: AllReduce | None = None
        self.others: dict[PeerId, FakeNetwork] = {}
        self.buffers = Buffers()
        self.sender = BulkSender(network, lambda peer, _: self.others[peer].endpoint, self._refuse)
        serve_bulk(network, self._accept, self._refuse, self.buffers)

    def _refuse(self, reason: str, peer: PeerId, detail: str) -> None:
        self.refusals.append(reason)

    async def _accept(self, peer, header):  # type: ignore[no-untyped-def]
        assert self.exchange is not None
        return await self.exchange.accept(peer, header)

    def begin(self, plan: OpenPlan) -> None:
        self.exchange = AllReduce(
            plan,
            self.offer,
            ExchangeContext(
                run=RUN, signer=self.signer, codec=self.codec, parameters=self.parameters
            ),
            ExchangePorts(
                sender=self.sender,
                buffers=self.buffers,
                offload=at_once,
                emit=self.events.append,
                refuse=self._refuse,
            ),
        )
        self.exchange.scatter()


class ExchangeWorld:
    """The members of one plan, and the result that they must find."""

    def __init__(
        self,
        members: Sequence[Member],
        swarm: FakeSwarm,
        weights: Sequence[int],
        terms: SumTerms | None = None,
    ) -> None:
        self.members, self.swarm = members, swarm
        codec, parameters = members[0].codec, members[0].parameters
        peers = tuple(member.signer.peer for member in members)
        ready = tuple(
            Ready(
                parent=RUN,
                view=0,
                number=1,
                seq=1,
                samples=weight,
                contribution=member.offer.digest,
                loss=None,
                fingerprint=fingerprint_of(member.network.endpoint),
                uplink_bps=0,
                downlink_bps=0,
            )
            for member, weight in zip(members, weights, strict=True)
        )
        plan = Plan(
            parent=RUN,
            view=0,
            number=1,
            offers=tuple(Signed(b"", peer, b"") for peer in peers),
            borders=share_out(chunk_count(parameters), [1.0] * len(peers)),
            groups=(tuple(range(len(peers))),),
            reason="",
        )
        if terms is not None:
            fields = {name: getattr(plan, name) for name in plan.__struct_fields__}
            plan = TrustPlan(**fields, round_s=5.0, terms=terms)
        self.plan = OpenPlan(
            plan=plan,
            digest=digest(b"plan"),
            leader=peers[0],
            members=peers,
            offers=ready,
            rules=CURRENT_RULES if terms is None else RULES_4,
        )
        self.codec, self.parameters = codec, parameters

    def inclusion(
        self, contributors: Sequence[int], number: int, absent: Sequence[int]
    ) -> tuple[Inclusion, Digest]:
        """Return an inclusion and its name; the first member present replaces the absent ones."""
        everybody = range(len(self.members))
        present = tuple(i for i in everybody if i not in absent)
        inclusion = Inclusion(
            plan=self.plan.digest,
            number=number,
            contributors=tuple(contributors),
            present=present,
            owners=tuple(i if i in present else present[0] for i in everybody),
            reason=counted_reason(len(contributors), len(everybody)),
        )
        return inclusion, digest(payload_of(inclusion))

    def root(self, contributors: Sequence[int]) -> Digest:
        """Return the root over the results of these contributors' means."""
        roots = []
        for first, stop in self.plan.layout.slices:
            start, end = element_range(first, stop, self.parameters)
            mean = np.empty(end - start, np.float32)
            at, behind = self.codec.size(start), self.codec.size(end)
            parts = {c: self.members[c].offer.encoded[at:behind] for c in contributors}
            sums = PlanSum(self.plan, contributors, self.parameters)
            sums.mean_by_plan(parts, self.codec, mean)
            encoded = self.codec.result.encode(mean)
            roots.append(merkle_root(leaves_of(encoded, chunk_bytes(self.codec.result))))
        return merkle_root(roots)

    def begin(self) -> None:
        for member in self.members:
            member.begin(self.plan)

    async def average(
        self, contributors: Sequence[int], number: int = 1, absent: Sequence[int] = ()
    ) -> dict[int, Digest]:
        """Carry out an inclusion in all members present; return the root that each one found."""
        inclusion, name = self.inclusion(contributors, number, absent)
        found: dict[int, Digest] = {}

        async def one(index: int) -> None:
            exchange = self.members[index].exchange
            assert exchange is not None
            found[index] = await exchange.average(inclusion, name)

        with trio.move_on_after(30.0):
            async with trio.open_nursery() as nursery:
                for index in inclusion.present:
                    nursery.start_soon(one, index)
        return found


@asynccontextmanager
async def exchange_world(
    codec: str = "float32",
    parameters: int = 4096 * 300 + 5,
    weights: Sequence[int] = (3, 1, 2),
    tampered: dict[int, Callable[[ByteStream], ByteStream]] | None = None,
    terms: SumTerms | None = None,
    lengths: Sequence[float] = (),
) -> AsyncIterator[ExchangeWorld]:
    """Connect the members of a world.

    Args:
        codec: the codec of their contributions.
        parameters: the size of their vectors.
        weights: the samples of each.
        tampered: wraps the bulk streams that a member opens.
        terms: the terms of the plan's sums, for a run of rules 4.
        lengths: by what each member's vector is multiplied.
    """
    swarm = FakeSwarm(random.Random(1), same_link(LINK))
    rng = np.random.Generator(np.random.PCG64(1))
    keys = sorted(
        (bytes([i + 1]) * 32 for i in range(len(weights))), key=lambda key: Signer(key).peer
    )
    members = []
    for index, key in enumerate(keys):
        network = swarm.network(key)
        if tampered is not None and index in tampered:
            _tamper(network, tampered[index])
        vector = rng.standard_normal(parameters).astype(np.float32)
        if lengths:
            vector *= np.float32(lengths[index])
        members.append(Member(network, key, vector, codec))
    world = ExchangeWorld(members, swarm, weights, terms)
    async with swarm.running(), trio.open_nursery() as nursery:
        for member in members:
            await nursery.start(_live, member)
            for other in members:
                member.others[other.signer.peer] = other.network
        await trio.sleep(1.0)
        for member in members:
            for other in members:
                if other is not member:
                    member.network.admit(other.network.endpoint)
        yield world
        nursery.cancel_scope.cancel()


async def _live(
    member: Member, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with member.network.running():
        await member.sender.run(task_status=task_status)


def _tamper(network: FakeNetwork, wrap: Callable[[ByteStream], ByteStream]) -> None:
    opened: Callable[..., Awaitable[ByteStream]] = network.open_bulk

    async def open_bulk(endpoint, protocol):  # type: ignore[no-untyped-def]
        return wrap(await opened(endpoint, protocol))

    network.open_bulk = open_bulk  # type: ignore[method-assign]
