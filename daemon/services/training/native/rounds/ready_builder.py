"""Builds the message that announces an offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from daemon.services.training.native.exchange.data_plane import DataPlane, fingerprint_of
from daemon.swarm.members import Members
from protocol.chain.account_binding import with_binding
from protocol.contribution.offer import Offer
from protocol.digest import Digest
from protocol.messages.membership import Statement
from protocol.messages.offer import (
    MAX_RELAYED,
    MAX_UNREACHABLE,
    Binding,
    DataStretch,
    Ready,
    RelayedPath,
    TaskReady,
    TrustReady,
)
from protocol.network.peer_observation import short_name
from protocol.ports.network import Network


class OfferStanding(msgspec.Struct, frozen=True, kw_only=True):
    """What an offer of rules 4 says beside the work: of other peers, and of its sender."""

    statements: tuple[Statement, ...] = ()
    # The proof of this node's invitation; empty where it needs none.
    invitation: bytes = b""
    # The samples behind the pending work.
    data: tuple[DataStretch, ...] = ()


class ReadyBuilder:
    """Builds the `Ready` of one node from its offer and its measurements."""

    def __init__(
        self,
        network: Network,
        members: Members,
        data_plane: DataPlane,
        binding: Binding | None,
        standing: Callable[[], OfferStanding] | None = None,
    ) -> None:
        """`standing` says what offers of rules 4 add; None for a run of earlier rules."""
        self._network, self._members = network, members
        self._data_plane, self._binding = data_plane, binding
        self._standing = standing

    def ready(self, parent: Digest, number: int, offer: Offer, loss: float | None) -> Ready:
        """Return the announcement of `offer` for the round after `parent`, in view 0."""
        estimates = self._members.link_estimates
        fields: dict[str, Any] = {
            "parent": parent,
            "view": 0,
            "number": number,
            "seq": offer.seq,
            "samples": offer.weight,
            "contribution": offer.digest,
            "loss": loss,
            "fingerprint": fingerprint_of(self._network.endpoint),
            "uplink_bps": self._data_plane.uplink_bps,
            "downlink_bps": self._data_plane.downlink_bps,
            "coordinate": estimates.coordinate,
            "observations": estimates.observations(parent),
            "task": self._members.tasks.name,
        }
        ready: Ready
        if self._standing is None:
            ready = TaskReady(**fields)
        else:
            standing = self._standing()
            ready = TrustReady(
                **fields,
                statements=standing.statements,
                invitation=standing.invitation,
                data=standing.data if offer.seq else (),
                unreachable=self._unreachable(parent),
                relayed=self._relayed(parent),
            )
        return ready if self._binding is None else with_binding(ready, self._binding)

    def _unreachable(self, parent: Digest) -> tuple[bytes, ...]:
        """The names of nodes at the same tip to which no path leads."""
        missing = self._network.unreachable() & self._members.live_at(parent)
        return tuple(sorted(map(short_name, missing))[:MAX_UNREACHABLE])

    def _relayed(self, parent: Digest) -> tuple[RelayedPath, ...]:
        """The relays on the paths to nodes at the same tip."""
        live = self._members.live_at(parent)
        used = [(peer, use) for peer, use in self._network.relays().items() if peer in live]
        return tuple(
            RelayedPath(
                to=short_name(peer), relay=short_name(use.relay), cap_bps=round(use.cap_bps)
            )
            for peer, use in sorted(used)[:MAX_RELAYED]
        )
