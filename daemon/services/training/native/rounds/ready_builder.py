"""Builds the message that announces an offer."""

from __future__ import annotations

from daemon.services.training.native.exchange.data_plane import DataPlane, fingerprint_of
from daemon.swarm.members import Members
from protocol.chain.account_binding import with_binding
from protocol.contribution.offer import Offer
from protocol.digest import Digest
from protocol.messages.offer import Binding, Ready, TaskReady
from protocol.ports.network import Network


class ReadyBuilder:
    """Builds the `Ready` of one node from its offer and its measurements."""

    def __init__(
        self, network: Network, members: Members, data_plane: DataPlane, binding: Binding | None
    ) -> None:
        self._network, self._members = network, members
        self._data_plane, self._binding = data_plane, binding

    def ready(self, parent: Digest, number: int, offer: Offer, loss: float | None) -> Ready:
        """Return the announcement of `offer` for the round after `parent`, in view 0."""
        estimates = self._members.link_estimates
        ready = TaskReady(
            task=self._members.tasks.name,
            parent=parent,
            view=0,
            number=number,
            seq=offer.seq,
            samples=offer.weight,
            contribution=offer.digest,
            loss=loss,
            fingerprint=fingerprint_of(self._network.endpoint),
            uplink_bps=self._data_plane.uplink_bps,
            downlink_bps=self._data_plane.downlink_bps,
            coordinate=estimates.coordinate,
            observations=estimates.observations(parent),
        )
        return ready if self._binding is None else with_binding(ready, self._binding)
