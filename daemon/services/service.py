"""Defines the port between a node and the services that it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import msgspec
import trio

from daemon.config.settings import Config
from daemon.system.trio_types import TaskStatus
from protocol.identity import Signer
from protocol.journal import JournalEvent
from protocol.membership.invitation import OwnInvitation
from protocol.membership.owner_record import OwnerRecords
from protocol.ports.disk import Disk
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.run.manifest import SignedManifest


class ServiceContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a node gives to each of its services."""

    config: Config
    manifest: SignedManifest
    signer: Signer
    disk: Disk
    offload: Offload
    record: Callable[[JournalEvent], None]
    # Returns a number greater than every earlier one, across restarts of the home.
    next_serial: Callable[[], int]
    invitation: OwnInvitation = OwnInvitation()
    owner_records: OwnerRecords | None = None


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a service reports about itself."""

    name: str
    # "failed" means that the service never did any work and cannot do any without a person.
    state: Literal["starting", "running", "failed"]
    detail: str = ""


class Service(Protocol):
    """One kind of work that a node does for others.

    The node calls `register`, then enters `resources`, then starts the network, then calls `run`.
    A service that is only constructed has started nothing and has written nothing.
    """

    def register(self, network: Network) -> None:
        """Register the service's protocols.

        The node calls this once, before the network starts: a peer that connects early must find
        every protocol.

        Raises `UserError` for a run that the service cannot work on.
        """

    def resources(self) -> AbstractAsyncContextManager[None]:
        """Start the processes of the service, and end them on exit.

        The node enters this before the network starts, because a process takes seconds to start.
        On exit no process of the service is left.
        """

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do the work until cancelled, or until `finish` was called.

        Reports `started` once the work has begun. The node ends when `run` returns. What must
        survive is then durable.
        """

    async def hold(self, held: bool) -> None:
        """Pause the service's own work, or go on with it. It may be called before `run`.

        What was worked out is durable on return where `held`. Others are served all the time.

        Raises `UserError` for a service that cannot pause.
        """

    def finish(self) -> None:
        """Make `run` write down what must survive, and return. Never blocks."""

    def status(self) -> ServiceStatus:
        """Return the current status. Never blocks."""
