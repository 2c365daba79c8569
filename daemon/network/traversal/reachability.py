"""Finds out whether others can call this node, and what kind of router is before it.

A few connected members are asked to call back. Where they see this node at an address that is not
its own, one fresh socket asks two of them for its outer port: two different ports mean a router
that maps each destination anew. The result is renewed every `RENEW_S`, and soon after connections
come or this machine's addresses change. A lost connection that comes back may mean that the
router's own address changed. While no call arrives, members are asked more often: a busy machine
answers too late, and would be called through relays for minutes.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections import OrderedDict
from collections.abc import Callable

import trio
from msgspec.structs import replace

from daemon.network.addresses import PeerAddress, parse_ip, primary_hosts
from daemon.network.own_hosts import elsewhere
from daemon.network.traversal.context import OwnPorts, TraversalContext
from daemon.network.traversal.messages import (
    TRAVERSAL_PROTOCOL,
    DialBack,
    DialedBack,
    request_over,
)
from daemon.network.traversal.observation import Address, observe
from daemon.network.traversal.preamble import TOKEN_BYTES
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import (
    UNKNOWN_REACHABILITY,
    DialBackResult,
    Reachability,
    conclude,
    misnamed,
)

_log = logging.getLogger(__name__)

# Members asked at a time. One inside the same network proves nothing.
ASKED_AT_ONCE = 3
# Between two checks where nothing changes. A router may drop a forwarded port unnoticed.
RENEW_S = 300.0
# The first pause while no call arrives. It doubles up to `RENEW_S`.
RETRY_S = 30.0
# Between a change and the check: several connections come at once.
SETTLE_S = 1.0
# Between two checks in any case.
LEAST_PAUSE_S = 10.0
# How often the connections and the addresses of this machine are looked at.
LOOK_S = 1.0
# Two outer ports of one socket tell the kind of a router.
ENOUGH_MAPPINGS = 2


class ReachabilityMonitor:
    """Keeps `reach` up to date."""

    def __init__(
        self,
        context: TraversalContext,
        ports: OwnPorts,
        own_hosts: Callable[[], tuple[str, ...]],
        advertised: tuple[PeerAddress, ...] = (),
    ) -> None:
        """
        Args:
            own_hosts: Gives the hosts of this machine and those that the user configured.
            advertised: What the user configured.
        """
        self.reach: Reachability = UNKNOWN_REACHABILITY
        # Answers of the last check, for a person who asks.
        self.results: tuple[DialBackResult, ...] = ()
        # What the user advertises, where members see this node elsewhere.
        self.misnamed = ""
        self._context, self._ports, self._own_hosts = context, ports, own_hosts
        self._advertised = advertised
        # Tokens under which calls may arrive; the oldest first.
        self._tokens: OrderedDict[bytes, None] = OrderedDict()
        self._asked_to = False
        self._pause_s = RETRY_S

    def renew(self) -> None:
        """Check again soon: the router sends other ports here than before."""
        self._asked_to = True

    def expects(self, token: bytes) -> bool:
        """Whether a call with this token proves that this node can be called."""
        return token in self._tokens

    async def run(self) -> None:
        """Check again and again, until cancelled."""
        checked_at, asked = float("-inf"), frozenset[PeerId]()
        hosts: tuple[str, ...] | None = None
        while True:
            await trio.sleep(LOOK_S)
            peers = frozenset(self._askable())
            now_hosts, age_s = primary_hosts(), trio.current_time() - checked_at
            # A member that has not been asked may know better, as long as few have.
            changed = (
                self._asked_to
                or now_hosts != hosts
                or (bool(peers - asked) and len(asked) < ASKED_AT_ONCE)
                or not peers & asked
                or self._came_back(peers & asked, checked_at)
            )
            if not peers or age_s < LEAST_PAUSE_S or not (changed or age_s > self._pause_s):
                continue
            await trio.sleep(SETTLE_S)
            checked_at, hosts, self._asked_to = trio.current_time(), now_hosts, False
            asked = await self.check()
            if self.reach.callable:
                self._pause_s = RENEW_S
            else:
                self._pause_s = RETRY_S if changed else min(2 * self._pause_s, RENEW_S)

    def _came_back(self, peers: frozenset[PeerId], checked_at: float) -> bool:
        """Whether a connection to a peer that was asked has come back since."""
        since_s = self._context.connections.since_s
        return any((since_s(peer) or checked_at) > checked_at for peer in peers)

    def _askable(self) -> list[PeerId]:
        connections = self._context.connections
        return [peer for peer in connections.peers() if connections.host_of(peer)]

    async def check(self) -> frozenset[PeerId]:
        """Ask a few members to call back, and conclude. Returns those that were asked."""
        peers = self._askable()
        # Members that matter are honest more often than strangers are.
        random.shuffle(peers)
        peers.sort(key=lambda peer: not self._context.matters(peer))
        asked = peers[:ASKED_AT_ONCE]
        answers: dict[PeerId, DialedBack] = {}

        async def ask(peer: PeerId) -> None:
            token = secrets.token_bytes(TOKEN_BYTES)
            self._tokens[token] = None
            try:
                stream = await self._context.open_stream(peer, TRAVERSAL_PROTOCOL)
                request = DialBack(control=self._ports.control, bulk=self._ports.bulk, token=token)
                answers[peer] = await request_over(stream, request, DialedBack)
            except Unreachable as error:
                _log.debug("no dial-back: %s", error)
            finally:
                del self._tokens[token]

        async with trio.open_nursery() as nursery:
            for peer in asked:
                nursery.start_soon(ask, peer)
        results = tuple(
            DialBackResult(
                by=peer,
                observed=answer.host,
                control=answer.control,
                bulk=answer.bulk if self._ports.bulk else None,
            )
            for peer, answer in answers.items()
            # This node signs the address and shows it to people.
            if parse_ip(answer.host) is not None
        )
        if results:
            self.results = results
            hosts = self._own_hosts()
            routed = any(result.observed not in hosts for result in results)
            differ = await self._mappings_differ(answers) if routed else None
            self.reach = conclude(results, hosts, differ)
            named = await elsewhere(self._advertised)
            self.misnamed = ""
            if named and (seen := misnamed(results, named)):
                self.misnamed = ", ".join(named)
                self.reach = replace(self.reach, callable=False, observed=seen)
        return frozenset(asked)

    async def _mappings_differ(self, answers: dict[PeerId, DialedBack]) -> bool | None:
        """Whether one socket has two outer ports, seen by two members or at two ports of one."""
        host_of = self._context.connections.host_of
        by_host = {host_of(peer): answer.observe_at for peer, answer in answers.items()}
        firsts = [Address(host, ports[0]) for host, ports in by_host.items() if host and ports]
        others = [Address(host, port) for host, ports in by_host.items() for port in ports[1:2]]
        local, seen = 0, list[Address]()
        for target in (*firsts, *others):
            try:
                local, outer = await observe(target, local)
            except Unreachable as error:
                _log.debug("an outer address: %s", error)
                continue
            seen.append(outer)
            if len(seen) == ENOUGH_MAPPINGS:
                return seen[0] != seen[1]
        return None
