"""The node's heartbeats to the chain.

A heartbeat registers the node's wallet, sets its payout account, and reports that the node is alive
and what it did. Heartbeats come at a third of the chain's timeout, in a task of their own, so that
training never waits for the chain. Every failure of the chain becomes a sentence in the journal,
and the next try follows. Figures that the chain has already are not sent again, not even by the
next process: the heartbeater reads first what the chain holds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import msgspec
import trio

from daemon.chain.certified_totals import HeartbeatFigures
from protocol.chain.errors import (
    ChainError,
    ChainPending,
    ChainRefused,
    ChainUnreachable,
    WrongChain,
)
from protocol.chain.keccak import ZERO_ADDRESS, Address
from protocol.chain.port import Chain, SentTransaction
from protocol.errors import UserError
from protocol.journal import ChainReport, JournalEvent
from protocol.ports.offload import Offload

# After this time the chain counts a node as dead, on Plumise and in our contracts.
HEARTBEAT_TIMEOUT_S = 300.0
# Two heartbeats may be lost. Plumise's own client sends one every 300 s, and its nodes flap.
HEARTBEAT_S = HEARTBEAT_TIMEOUT_S / 3
# The share of the interval that varies, so that nodes that started together spread out.
JITTER = 0.2
# The wait after the first failure. It doubles with each failure, up to the heartbeat's interval.
RETRY_S = 5.0
# 20 blocks of Plumise. The next heartbeat looks after what is not settled by then.
SETTLE_S = 60.0


class AgentIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The node's name on the chain and its payout account.

    Without a payout account, the wallet itself is paid.
    """

    name: str
    payout: Address | None = None


class Heartbeater:
    """Sends one node's heartbeats while `run` runs."""

    def __init__(
        self,
        *,
        open_chain: Callable[[], Chain],
        identity: AgentIdentity,
        figures: Callable[[], HeartbeatFigures | None],
        offload: Offload,
        record: Callable[[JournalEvent], None],
        jitter: Callable[[], float],
        every_s: float = HEARTBEAT_S,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Make a heartbeater; nothing is sent yet.

        Args:
            open_chain: returns the chain, and opens it at the first call.
            identity: who the node is on the chain.
            figures: returns what to report; None before the first certificate.
            offload: runs blocking work in a thread.
            record: accepts events of the journal.
            jitter: returns random numbers from 0 to 1.
            every_s: the interval between heartbeats.
            turn: excludes the other processes that sign with the same wallet.
        """
        self._open_chain, self._identity, self._figures = open_chain, identity, figures
        self._offload, self._record, self._jitter = offload, record, jitter
        self._every_s, self._turn = every_s, turn
        self._last: ChainReport | None = None
        self._failures = 0

    async def run(self) -> None:
        """Send heartbeats until cancelled."""
        while True:
            report = await self._offload(self.send_heartbeat)
            self._failures = 0 if report.state == "live" else self._failures + 1
            # A chain that stays unreachable is reported once, not at each try.
            if report != self._last:
                self._record(report)
            self._last = report
            await trio.sleep(self.wait_s())

    def wait_s(self) -> float:
        """Return the wait until the next try, at most the interval between heartbeats.

        So a node that is cut off is back before the chain counts it as dead.
        """
        wait_s = (
            self._every_s
            if not self._failures
            else min(self._every_s, RETRY_S * 2 ** min(self._failures - 1, 10))
        )
        return wait_s * (1.0 - JITTER * self._jitter())

    def send_heartbeat(self) -> ChainReport:
        """Send one heartbeat, if there is something to report. Blocking.

        Returns the state of the chain, also after a failure of the chain or the wallet.
        """
        try:
            with self._turn():
                return self._send_heartbeat(self._open_chain())
        except ChainUnreachable as error:
            return self._failed("down", str(error))
        except WrongChain as error:
            return self._failed("wrong", str(error))
        except ChainPending as error:
            return self._failed("down", str(error))
        except ChainRefused as error:
            return self._failed("refused", error.reason)
        except ChainError as error:
            return self._failed("down", str(error))
        except UserError as error:
            # Nobody is at the keyboard, so the journal reports a locked wallet or wrong settings.
            return self._failed(
                "locked" if error.exit_code == 5 else "none", f"{error.what} {error.fix}".strip()
            )

    def _failed(self, state: str, reason: str) -> ChainReport:
        known = self._last or ChainReport(profile="", state=state)
        return msgspec.structs.replace(known, state=state, reason=reason, at=0.0)

    def _send_heartbeat(self, chain: Chain) -> ChainReport:
        chain.reconcile()
        agent = chain.agent(chain.account)
        if not agent.registered:
            self._settle(chain, lambda: chain.register(self._identity.name))
            agent = chain.agent(chain.account)
        payout = self._identity.payout or chain.account
        if chain.profile != "plumise" and agent.payout not in {
            payout,
            ZERO_ADDRESS if payout == chain.account else payout,
        }:
            self._settle(chain, lambda: chain.set_payout(payout))
        figures = self._figures()
        if figures is not None and not self._is_known(agent.samples, agent.certificate, figures):
            # The chain refuses fewer samples than before, and this disk may lack certificates.
            samples = max(figures.samples, agent.samples)
            self._settle(chain, lambda: chain.heartbeat(samples, figures.certificate))
            agent = chain.agent(chain.account)
        return ChainReport(
            profile=chain.profile,
            state="live",
            account=chain.account,
            payout=payout,
            samples=agent.samples,
            claimed=str(chain.claimed(chain.account)),
        )

    def _is_known(self, samples: int, certificate: bytes, figures: HeartbeatFigures) -> bool:
        return certificate == figures.certificate and samples >= figures.samples

    def _settle(self, chain: Chain, send: Callable[[], SentTransaction]) -> None:
        """Send a transaction and wait until it is settled. Raises `ChainError`."""
        settled = chain.wait(send(), SETTLE_S)
        if not settled.done:
            raise ChainRefused(settled.reason or "the transaction was not included")
