"""What every `Network` must do. The fake and the real network run exactly these tests.

A test module subclasses `NetworkSuite` and provides the fixture `make_swarm`, a `SwarmFactory`. The
suite measures no time, and sleeps only while it polls a counter that has no event. So it works in
virtual time and on loopback alike.
"""

from __future__ import annotations

from tests.ports.network_admission_suite import NetworkAdmissionSuite
from tests.ports.network_failure_suite import NetworkFailureSuite
from tests.ports.network_gossip_suite import NetworkGossipSuite
from tests.ports.network_stream_suite import NetworkStreamSuite


class NetworkSuite(
    NetworkStreamSuite, NetworkFailureSuite, NetworkAdmissionSuite, NetworkGossipSuite
):
    """Inherit, and provide the fixture."""
