"""Writes the verdict into the log from time to time: the summary of rounds that it leaves out."""

from __future__ import annotations

import logging

import trio

from daemon.journal import Journal

# 96 lines a day, about 30 KB.
EVERY_S = 900.0

_log = logging.getLogger(__name__)


async def log_verdict(journal: Journal) -> None:
    """Log the node's verdict every `EVERY_S`, until cancelled."""
    while True:
        await trio.sleep(EVERY_S)
        status = journal.status()
        _log.info("Round %d. %s", status.run.number, status.verdict)
