"""The address and certificate of a peer for bulk streams."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.identity import PeerId
from protocol.network.reachability import UNKNOWN_REACHABILITY, Reachability

# One endpoint lists its interfaces, a public address and a name; the rest is a reserve.
MAX_HOSTS = 8
# The longest DNS name (RFC 1035).
MAX_HOST_CHARS = 253
# Ours have 256 bytes; one with an RSA key of 4,096 bits has 1,300.
MAX_CERTIFICATE_BYTES = 2048


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a peer accepts bulk streams: its addresses and the exact certificate that it shows.

    A caller tries `hosts` in order. `certificate` is the self-signed X.509 certificate in DER.
    Trust an endpoint only when it arrives inside a message that its peer signed.
    """

    peer: Annotated[PeerId, Meta(max_length=60)]
    hosts: Annotated[
        tuple[Annotated[str, Meta(max_length=MAX_HOST_CHARS)], ...], Meta(max_length=MAX_HOSTS)
    ]
    port: Annotated[int, Meta(ge=0, le=65_535)]
    certificate: Annotated[bytes, Meta(max_length=MAX_CERTIFICATE_BYTES)]
    # What the peer knows of how others reach it. Releases before this field ignore it.
    reach: Reachability = UNKNOWN_REACHABILITY
