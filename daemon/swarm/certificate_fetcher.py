"""Asks peers for the certificates that gossip missed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from daemon.swarm.ancestry import LineageEntry
from daemon.swarm.ask_order import AskOrder
from daemon.swarm.chain_sync import read_chain
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from daemon.swarm.messenger import Refuse
from protocol.digest import Digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.ports.network import Network

# Requests to one peer in a row. A peer that makes up certificates without end must not keep a node
# from the others.
REQUESTS_IN_A_ROW = 64
# The pause after each certificate of a stranger, where a round goes on meanwhile: three times what
# the certificate costs.
STRANGERS_PAUSE_S = 0.01
# Peers asked at once, so that a silent one delays nothing.
ASKED_IN_TURN = 3
# Certificates of one answer without a known parent, after which the rest is not read. The branch is
# then looked for further back.
MAX_USELESS = 32
# Certificates asked for below the first one when its parent is unknown: a partition of a demo's
# length.
STEP_BACK = 16


class CertificateFetcher:
    """Fetches certificates into the lineage, from members before strangers."""

    def __init__(
        self,
        network: Network,
        run: Digest,
        lineage: Lineage,
        members: Members,
        refuse: Refuse,
        on_entries: Callable[[list[LineageEntry]], None],
        on_news: Callable[[], None],
    ) -> None:
        """
        Args:
            on_entries: Called with entries that joined the lineage.
            on_news: Called when anything changed that may make asking worthwhile.
        """
        self._network, self._run = network, run
        self._lineage, self._members, self._refuse = lineage, members, refuse
        self._on_entries, self._on_news = on_entries, on_news
        self._order = AskOrder()
        # By tip: its age, and when this node heard of the age.
        self.ages: dict[Digest, tuple[float, float]] = {}
        # Whether rounds of ours go on while certificates are verified.
        self.verifies_beside_rounds = False

    def note_age(self, tip: Digest, age_s: float) -> None:
        """Note how long ago a certificate was made.

        With the age, a node that downloads the state ends the round with the others.
        """
        self.ages[tip] = (age_s, trio.current_time())
        if len(self.ages) > 2 * STEP_BACK:
            del self.ages[next(iter(self.ages))]

    async def ask(self, peers: Iterable[PeerId]) -> None:
        """Ask a few peers at once for the certificates after our front, until one has news.

        Of peers with one rank, connected ones are asked first: one that cannot be called would
        hold up the others of its turn.
        """
        members = self._members
        ours = [peer for peer in peers if not members.has_other_task(peer)]
        chosen = self._order.order(
            ours,
            lambda peer: 2 * members.rank(peer) + (not members.is_connected(peer)),
            trio.current_time(),
        )[:ASKED_IN_TURN]
        async with trio.open_nursery() as nursery:
            for peer in chosen:
                nursery.start_soon(self._ask_and_rate, peer, nursery.cancel_scope)

    async def _ask_and_rate(self, peer: PeerId, scope: trio.CancelScope) -> None:
        gave = False
        self._order.asked(peer, trio.current_time())
        try:
            gave = await self._ask_one(peer)
        except Unreachable:
            pass
        except PeerFault as fault:
            self._refuse(fault.reason, peer, str(fault))
        if gave:
            self._order.gave(peer)
            scope.cancel()
        else:
            self._order.gave_nothing(peer, self._members.rank(peer), trio.current_time())

    async def _ask_one(self, peer: PeerId) -> bool:
        """Ask one peer. Returns whether it gave anything new."""
        first = self._lineage.front.number + 1
        back, gave = STEP_BACK, False
        for _ in range(REQUESTS_IN_A_ROW):
            answer = _Answer(last=first - 1)

            async def accept(raw: bytes, answer: _Answer = answer) -> bool:
                waited = self._lineage.waiting
                # A peer with our task follows these certificates, whatever version of the task
                # they were made with.
                entries = self._lineage.add(raw, of_any_task=True, source=peer, asked=True)
                self._on_news()
                if entries:
                    answer.reaches = True
                    answer.last = max(answer.last, *(made.tip.number for made in entries))
                    self._on_entries(entries)
                elif waited:
                    answer.useless += 1
                if self._members.rank(peer) and self.verifies_beside_rounds:
                    await trio.sleep(STRANGERS_PAUSE_S)
                else:
                    await trio.lowlevel.checkpoint()
                return answer.useless < MAX_USELESS

            reply = await read_chain(self._network, peer, self._run, first, accept)
            gave = gave or answer.reaches
            self.note_age(reply.tip, reply.age_s)
            if answer.reaches and answer.last < reply.number:
                first = answer.last + 1
            elif not answer.reaches and self._lineage.tip(reply.tip) is None and first > 1:
                # The peer is on another branch. Look for the place where it left ours.
                first, back = max(1, first - back), back * 2
            else:
                break
        return gave


class _Answer:
    """What one answer has brought so far."""

    def __init__(self, last: int) -> None:
        self.reaches, self.last, self.useless = False, last, 0
