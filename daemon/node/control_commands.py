"""The commands that a running node answers on its control socket."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import trio

from daemon.control.server import Handler
from daemon.journal import Journal
from daemon.network.network import LibP2PNetwork
from daemon.node.shutdown import Shutdown
from daemon.node.stage_report import report_stage
from daemon.services.inference.service import InferenceService
from daemon.services.service import Service
from protocol.errors import Unreachable, UserError
from protocol.journal import JournalEvent, RoundAveraged, RoundCertified, Trouble, Warned
from protocol.messages.membership import OrderAction

FINISH_ROUNDS, FINISH_S = 3.0, 60.0
"""A node that is to finish its round waits this many rounds, and this long, for a certificate.

A round whose first two leaders fail takes about three. A node that is alone certifies none.
"""


class NodeControl:
    """What commands ask of a running node."""

    def __init__(self, journal: Journal, shutdown: Shutdown) -> None:
        self._journal, self._shutdown = journal, shutdown
        self._services: Sequence[Service] = ()
        self._finish, self._certified = trio.Event(), trio.Event()
        self._round_s = 0.0
        # Training is held while any of them wants that.
        self._held_here = self._held_by_owner = self._held_by_limits = False
        self._network: LibP2PNetwork | None = None

    def serves(self, services: Sequence[Service], round_s: float, network: LibP2PNetwork) -> None:
        """Take what commands are about. A round of the run takes up to `round_s`."""
        self._services, self._round_s, self._network = services, round_s, network

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by the name of their command."""
        return {
            "status": self._status,
            "stop": self._stop,
            "pause": self._pause,
            "resume": self._resume,
            "finish": self._finish_round,
            "network": self._diagnose,
            "stage": self._stage,
        }

    async def run(self) -> None:
        """Ask for the end of the process once a round is finished that `finish` waits for."""
        await self._finish.wait()
        self._journal.add_listener(self._heard)
        with trio.move_on_after(FINISH_ROUNDS * self._round_s + FINISH_S):
            await self._certified.wait()
            self._shutdown.request("its round is finished, as hypergpud finish asked")
        self._shutdown.request("hypergpud finish asked for it, and no round was certified in time")

    def _heard(self, event: JournalEvent) -> None:
        if isinstance(event, RoundCertified | RoundAveraged):
            self._certified.set()

    async def _status(self) -> bytes:
        return msgspec.json.encode(self._journal.status())

    async def _stop(self) -> bytes:
        self._shutdown.request("asked to stop by hypergpud stop")
        return b"{}"

    async def _finish_round(self) -> bytes:
        self._working()
        self._finish.set()
        return b"{}"

    async def obey(self, action: OrderAction) -> None:
        """Do what the run's owner ordered. A pause of this node's own person stays."""
        self._held_by_owner = action != "start"
        try:
            await self._hold()
        except UserError as error:
            self._journal.record(Warned(code=error.code, message=f"{error.what} {error.why}"))

    async def _pause(self) -> bytes:
        self._working()
        self._held_here = True
        await self._hold()
        return b"{}"

    async def _resume(self) -> bytes:
        self._working()
        self._held_here = False
        await self._hold()
        if self._held_by_owner:
            raise UserError(
                "HELD_BY_OWNER",
                "The run's owner paused training, so this node waits.",
                why="this node's own pause is over, and the owner's is not",
                fix="wait for the owner, who types  hypergpud run resume",
            )
        if limited := self._journal.status().you.limits.sentence:
            raise UserError(
                "LIMITED",
                f"{limited}.",
                why="this node's own pause is over, and the limits in its settings hold",
                fix="hypergpud config show lists [limits]; a change counts from the next start on",
            )
        return b"{}"

    async def hold_for_limits(self, services: Sequence[Service], held: bool) -> None:
        """Pause training of a node, or let it go on, because of what its volunteer allows."""
        self._held_by_limits = held
        try:
            await self._hold_all(services)
        except UserError as error:
            self._journal.record(
                Trouble(
                    code="LIMITS",
                    level="warning",
                    message=f"The limits have no effect. {error.what} {error.why}",
                )
            )

    async def _hold(self) -> None:
        await self._hold_all(self._services)

    async def _hold_all(self, services: Sequence[Service]) -> None:
        held = self._held_here or self._held_by_owner or self._held_by_limits
        for service in services:
            await service.hold(held)

    async def _diagnose(self) -> bytes:
        self._working()
        assert self._network is not None
        try:
            return msgspec.json.encode(await self._network.diagnose())
        except Unreachable as error:
            raise UserError("STOPPING", "The node is stopping.", why=str(error)) from None

    async def _stage(self) -> bytes:
        """Report the stage that this node serves beside training."""
        for service in self._working():
            if isinstance(service, InferenceService) and self._network is not None:
                return report_stage(service, self._network)
        raise UserError(
            "STAGE",
            "This home's node serves no model.",
            why="the setting inference.model is empty",
            fix="hypergpud config set inference.model MODEL, then start again",
        )

    def _working(self) -> Sequence[Service]:
        """The services. Raises `UserError` for a node that has none yet."""
        if not self._services:
            raise UserError(
                "STARTING",
                "The node has not begun to work on its run.",
                why="it still looks for the run",
                fix="try again once it is ready, or stop it: hypergpud stop",
            )
        return self._services
