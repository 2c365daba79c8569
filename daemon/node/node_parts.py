"""Defines what every part of a running node is built from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
import trio

from daemon.config.settings import Config
from daemon.home.serials import Serials
from daemon.journal import Journal
from daemon.node.shutdown import Shutdown
from daemon.system.trio_types import TaskStatus
from daemon.wallet.password import Password
from protocol.identity import Signer
from protocol.membership.owner_record import OwnerRecords
from protocol.run.manifest import SignedManifest


class Page(Protocol):
    """The page of a node. It is a port, so that a node without a page loads no web server."""

    async def run(self, *, task_status: TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the page until cancelled. Starts with its address, or with an empty text."""

    async def show_run(self, signed: SignedManifest, records: OwnerRecords) -> None:
        """Answer questions about the run from now on."""


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
    # None where the node serves no page.
    page: Page | None
    # The address of the page that is served; empty where none is.
    page_url: str = ""
    # Shows a sentence to the person who started the node.
    say: Callable[[str], None]
