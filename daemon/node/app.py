"""Starts trio: runs a node or an observer, and turns an error into an exit status and a message."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from daemon.config.settings import Config
from daemon.journal import Journal
from daemon.log_budget import ROUTINE
from daemon.node import node
from daemon.node.node_parts import Page
from daemon.node.shutdown import INTERRUPTED
from daemon.system.open_files import allow_open_files
from daemon.wallet.password import Password
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.journal import (
    AnchorScored,
    JournalEvent,
    PhaseEntered,
    Planned,
    RoundAveraged,
    RoundCertified,
    Trained,
    WorkAudited,
)
from protocol.membership.invitation_token import Invitation
from protocol.ports.disk import DiskFull
from protocol.run.manifest import SignedManifest
from protocol.status import EventLog

Say = Callable[[str], None]
_log = logging.getLogger(__name__)
# What every round has, and the outcomes in which it lost nothing.
_EACH_ROUND = (PhaseEntered, Trained, Planned, AnchorScored, WorkAudited)
_AS_IT_SHOULD = frozenset({"counted", "observed", "idle", "averaged"})
_LEVELS = {
    "info": logging.INFO,
    "good": logging.INFO,
    "warning": logging.WARNING,
    "bad": logging.ERROR,
}


def run_node(
    config: Config,
    manifest: SignedManifest | None,
    signer: Signer,
    secret: bytes,
    journal: Journal,
    lifeline: int | None,
    say: Say,
    password: Password | None = None,
    invitation: Invitation | None = None,
) -> int:
    """Run a node with settings that have been checked. Returns the exit status.

    Without a manifest, the node asks the peers that it joins for theirs. With an invitation, it
    accepts only the run that the invitation names.
    """
    journal.add_listener(log_events(EventLog()))
    page: Page | None = None
    if config.page.enabled:
        # A node without a page does not import the web server.
        from daemon.node.node_page import NodePage  # noqa: PLC0415

        page = NodePage(config, journal)
    return run_trio(
        partial(
            node.run,
            config,
            manifest,
            signer,
            secret,
            journal,
            lifeline,
            say,
            password,
            invitation,
            page,
        )
    )


def run_observer(config: Config, join: tuple[str, ...], lifeline: int | None, say: Say) -> int:
    """Run an observer with settings that have been checked. Returns the exit status."""
    # A node does not import the web server.
    from daemon.node import observer_node  # noqa: PLC0415

    return run_trio(partial(observer_node.run, config, join, lifeline, say))


def run_own_page(config: Config, lifeline: int | None, say: Say) -> int:
    """Serve the page of the node on a home. Returns the exit status."""
    # A node does not import the web server.
    from daemon.node import own_page  # noqa: PLC0415

    return run_trio(partial(own_page.run, config, lifeline, say))


def log_events(events: EventLog) -> Callable[[JournalEvent], None]:
    """Return a listener that logs the sentence of each event, with its round and view in front.

    The same words "round N view V" are in the logs of all members of a round.
    """

    def log(event: JournalEvent) -> None:
        if event.durable and (line := events.describe(event)) is not None:
            level, sentence = line
            number = logging.DEBUG if isinstance(event, PhaseEntered) else _LEVELS.get(level)
            routine = {ROUTINE: is_routine(event)}
            _log.log(number or logging.INFO, "%s%s", round_label(event), sentence, extra=routine)

    return log


def is_routine(event: JournalEvent) -> bool:
    """Whether an event tells only that a round goes as it should."""
    if isinstance(event, RoundCertified | RoundAveraged):
        return event.outcome in _AS_IT_SHOULD
    return isinstance(event, _EACH_ROUND)


def round_label(event: JournalEvent) -> str:
    """`[round 12 view 0] ` for an event of a round, `[round 12] ` without a view; else nothing."""
    number, view = getattr(event, "number", None), getattr(event, "view", None)
    if number is None:
        return ""
    return f"[round {number}] " if view is None else f"[round {number} view {view}] "


def run_trio(main: Callable[[], Awaitable[int]]) -> int:
    """Run `main`. An error that reaches this function ends the process."""
    allow_open_files()
    try:
        return trio.run(main)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as group:
        leaves = _leaves(group)
        if any(isinstance(error, KeyboardInterrupt) for error in leaves):
            return INTERRUPTED
        for error in leaves:
            if isinstance(error, UserError):
                raise error from None
            if isinstance(error, DiskFull):
                raise UserError(
                    "DISK_FULL",
                    "Cannot start: the disk is full or not writable.",
                    why=str(error),
                    fix="free some space there, or name another directory with --home PATH",
                ) from None
        raise
    except trio.TrioInternalError as error:
        # py-libp2p runs trio system tasks, whose failure ends trio. The service manager restarts
        # the node.
        _log.critical(
            "A background task of a library failed, and the node ends. Start it again.",
            exc_info=error.__cause__ or error,
        )
        return 1


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
