"""The heartbeat: registers the node's wallet, names the payout, and says at a third of the chain's
timeout that the node lives and what it did.

A task of its own. Whatever the chain does (silence, garbage, another chain, a refusal) ends in a
sentence in the journal and another try; training never waits for it. A figure that the chain has
already is not sent again, also not by the next process: what the chain holds is read back first.
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

# After this the chain takes a node for dead (Plumise's figure, and our contracts').
HEARTBEAT_TIMEOUT_S = 300.0
# The original client beats every 300 s and flaps; two of these may be lost.
HEARTBEAT_S = HEARTBEAT_TIMEOUT_S / 3
# Nodes that were started together do not beat together.
JITTER = 0.2
# After the first failure, then twice as long each time, up to the beat itself.
RETRY_S = 5.0
# 20 blocks of Plumise; what is not settled by then is looked after at the next beat.
SETTLE_S = 60.0


class AgentIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Who beats: the node's name on the chain, and where its claims are paid (None: to the wallet
    itself).
    """

    name: str
    payout: Address | None = None


class Heartbeater:
    """One node's heartbeats. Starts nothing by itself."""

    def __init__(
        self,
        *,
        opener: Callable[[], Chain],
        identity: AgentIdentity,
        figure: Callable[[], HeartbeatFigures | None],
        offload: Offload,
        record: Callable[[JournalEvent], None],
        dice: Callable[[], float],
        every_s: float = HEARTBEAT_S,
        settle_s: float = SETTLE_S,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`opener` gives the chain, opened when it is first asked for; `dice` numbers between 0 and
        1.

        A beat takes its `turn` among the processes that sign with this wallet.
        """
        self._opener, self._identity, self._figure = opener, identity, figure
        self._offload, self._record, self._dice = offload, record, dice
        self._every_s, self._settle_s, self._turn = every_s, settle_s, turn
        self._last: ChainReport | None = None
        self._failures = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            report = await self._offload(self.send_heartbeat)
            self._failures = 0 if report.state == "live" else self._failures + 1
            # A chain that stays away is one sentence, not one each time.
            if report != self._last:
                self._record(report)
            self._last = report
            await trio.sleep(self.wait_s())

    def wait_s(self) -> float:
        """Until the next try: never longer than the beat, so that a chain that came back is noticed
        in time.
        """
        wait_s = (
            self._every_s
            if not self._failures
            else min(self._every_s, RETRY_S * 2 ** min(self._failures - 1, 10))
        )
        return wait_s * (1.0 - JITTER * self._dice())

    def send_heartbeat(self) -> ChainReport:
        """One heartbeat, where there is something to say.

        Blocking; raises nothing that a chain does.
        """
        try:
            with self._turn():
                return self._send_heartbeat(self._opener())
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
            # The wallet or the settings: said in the journal, since nobody is at the keyboard.
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
        figure = self._figure()
        if figure is not None and not self._is_known(agent.samples, agent.certificate, figure):
            # Never fewer than before: certificates may be missing from this disk.
            samples = max(figure.samples, agent.samples)
            self._settle(chain, lambda: chain.heartbeat(samples, figure.certificate))
            agent = chain.agent(chain.account)
        return ChainReport(
            profile=chain.profile,
            state="live",
            account=chain.account,
            payout=payout,
            samples=agent.samples,
            claimed=str(chain.claimed(chain.account)),
        )

    def _is_known(self, samples: int, certificate: bytes, figure: HeartbeatFigures) -> bool:
        return certificate == figure.certificate and samples >= figure.samples

    def _settle(self, chain: Chain, send: Callable[[], SentTransaction]) -> None:
        """Send and see it through. Raises `ChainError`."""
        settled = chain.wait(send(), self._settle_s)
        if not settled.done:
            raise ChainRefused(settled.reason or "it was not taken")
