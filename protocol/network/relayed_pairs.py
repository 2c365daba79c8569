"""Which members of a plan send each other bytes through a relay, and what the relay can carry.

A pair counts where both of its ends name it in their offers, and each end says which relay its own
streams take. So a single liar adds nothing. Two liars can only claim a relay between themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from protocol.identity import PeerId
from protocol.messages.offer import Ready, RelayedPath, TrustReady
from protocol.network.peer_observation import short_name
from protocol.network.samples import median


class RelayedPair(msgspec.Struct, frozen=True, kw_only=True):
    """The streams from one member to another that a relay passes on; members by their index."""

    sender: int
    to: int
    relay: bytes
    # What the relay can pass on, bits a second; 0: unknown.
    capacity_bps: int


def relayed_pairs(
    offers: Sequence[tuple[PeerId, Ready]], uplinks: Sequence[int], downlinks: Sequence[int]
) -> tuple[RelayedPair, ...]:
    """The relayed pairs of a plan.

    A relay counts with its own link where it is a member, else with the median of what members
    measured of it. Its owner's cap bounds that.

    Args:
        offers: the offers, one for each member.
        uplinks: of each member in bits a second; 0: unknown. `downlinks` likewise.
    """
    index = {short_name(peer): i for i, (peer, _) in enumerate(offers)}
    names, claims = list(index), [_claims(ready) for _, ready in offers]
    known = _measured(offers)
    for name, i in index.items():
        rates = [rate for rate in (uplinks[i], downlinks[i]) if rate]
        known[name] = min(rates, default=0)
    found: list[RelayedPair] = []
    for sender, paths in enumerate(claims):
        for name, path in sorted(paths.items()):
            to = index.get(name)
            if to is None or to == sender or names[sender] not in claims[to]:
                continue
            rates = [rate for rate in (known.get(path.relay, 0), path.cap_bps) if rate]
            capacity_bps = min(rates, default=0)
            found.append(
                RelayedPair(sender=sender, to=to, relay=path.relay, capacity_bps=capacity_bps)
            )
    return tuple(found)


def _claims(ready: Ready) -> Mapping[bytes, RelayedPath]:
    """The relayed paths that an offer names, by the other end."""
    if not isinstance(ready, TrustReady):
        return {}
    return {path.to: path for path in ready.relayed}


def _measured(offers: Sequence[tuple[PeerId, Ready]]) -> dict[bytes, int]:
    """The median uplink that members measured of each node, bits a second."""
    seen: dict[bytes, list[int]] = {}
    for _, ready in offers:
        for one in {one.who: one for one in ready.observations}.values():
            if one.uplink_bps:
                seen.setdefault(one.who, []).append(one.uplink_bps)
    return {name: median(rates) for name, rates in seen.items()}
