"""Defines what every part of a running node is built from."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from daemon.config.settings import Config
from daemon.home.serials import Serials
from daemon.journal import Journal
from daemon.node.shutdown import Shutdown
from daemon.wallet.password import Password
from protocol.identity import Signer


class NodeParts(msgspec.Struct, frozen=True, kw_only=True):
    """A node's settings, identity and records, for as long as its process runs."""

    config: Config
    signer: Signer
    # The seed behind `signer`.
    secret: bytes
    password: Password | None
    serials: Serials
    journal: Journal
    shutdown: Shutdown
    # Shows a sentence to the person who started the node.
    say: Callable[[str], None]
