"""The commands that a running node answers on its control socket."""

from __future__ import annotations

import msgspec

from daemon.control.server import Handler
from daemon.journal import Journal
from daemon.node.shutdown import Shutdown


def control_commands(journal: Journal, shutdown: Shutdown) -> dict[str, Handler]:
    """Return the handlers by the name of their command."""

    async def status() -> bytes:
        return msgspec.json.encode(journal.status())

    async def stop() -> bytes:
        shutdown.request("asked to stop by hypergpud stop")
        return b"{}"

    return {"status": status, "stop": stop}
