"""Inside a member: reports what the engine does, and carries out strikes and dumps.

A strike is a real signal that the process sends to itself at an exact step. From outside, a step of
some milliseconds could not be hit.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from daemon.services.training.native.engine import NativeEngine
from protocol import journal
from protocol.round import events as e
from simulator.harness.shadow_ledger import digest_of
from simulator.harness.wire import (
    MAX_LINE_BYTES,
    AnyLine,
    Certified,
    Dump,
    Dumped,
    Entered,
    LinkLost,
    Offered,
    Passed,
    Remark,
    Resumed,
    Strike,
    StrikeReport,
    Summed,
    decode_command,
    encode,
)

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class MemberAgent:
    """Reports the engine's events as lines, and carries out strikes and dumps."""

    def __init__(self, output: int) -> None:
        self.engine: NativeEngine | None = None
        self._output = output
        self._strike: Strike | None = None
        # When the strike's step was entered.
        self._in_step_since: float | None = None
        self._timer = trio.Event()
        self._dumps: list[Dump] = []
        self._resumed = False

    def say(self, line: Callable[..., AnyLine], **fields: Any) -> None:
        """Write a line.

        It blocks while the harness does not read: the line is in the pipe before anything else
        happens.
        """
        data = memoryview(encode(line(at_s=time.monotonic(), **fields)))
        while data:
            data = data[os.write(self._output, data) :]

    # ---------------------------------------------------------------- events

    def observe(self, event: e.Event) -> None:
        """Report an event of the round machine, before the machine handles it."""
        state = self.engine.state if self.engine else None
        if isinstance(event, e.OfferMade):
            ready = event.ready
            self.say(
                Offered,
                number=ready.number,
                seq=ready.seq,
                samples=ready.samples,
                contribution=ready.contribution.hex(),
            )
        elif (
            isinstance(event, e.ResultReceived)
            and state is not None
            and state.plan is not None
            and state.inclusion is not None
        ):
            plan, me = state.plan, state.context.me
            if event.slice == plan.index.get(me) and event.slice not in state.results:
                self.say(Summed, number=state.number)
                self._came_to("gather", state.number)

    def record(self, event: journal.JournalEvent) -> None:
        """Report an event of the engine's journal."""
        match event:
            case journal.PhaseEntered():
                self._entered(event)
            case journal.RoundCertified():
                self._certified(event)
            case journal.PeerDown(peer=peer, reason=reason):
                self.say(LinkLost, peer=peer, reason=reason)
            case journal.ViewPassed(number=number, view=view, reason=reason):
                self.say(Passed, number=number, view=view, reason=reason)
            case journal.CaughtUp(number=number, seconds=seconds):
                self.say(
                    Remark, text=f"downloaded the anchor of certificate {number} in {seconds:.2f} s"
                )
            case journal.WorkDropped(samples=samples, reason=reason):
                self.say(Remark, text=f"dropped {samples} samples: {reason}")
            case journal.Warned(code=code, message=message):
                self.say(Remark, text=f"{code}: {message}")
            case journal.Stuck(reason=reason) | journal.Alone(reason=reason):
                self.say(Remark, text=reason)
            case journal.InputRefused(reason=reason, peer=peer, detail=detail):
                self.say(Remark, text=f"refused ({reason}) {peer[-8:]}: {detail}")
            case _:
                pass

    def _entered(self, event: journal.PhaseEntered) -> None:
        engine = self.engine
        assert engine is not None
        state, store = engine.state, engine.state_store
        # When the first phase of a life is entered, its state is in place.
        if not self._resumed and store is not None:
            self._resumed = True
            ledger = store.ledger
            self.say(
                Resumed,
                number=store.tip.number,
                hash=store.tip.hash.hex(),
                weight=ledger.pending,
                offered_seq=ledger.offer.seq,
                next_seq=ledger.next_seq,
                given=ledger.offer_sent,
                vectors=digest_of(ledger),
            )
        self._left_step()
        leads = state is not None and state.leads
        self.say(
            Entered,
            number=event.number,
            view=event.view,
            phase=event.phase,
            reason=event.reason,
            leads=leads,
        )
        self._came_to(event.phase, event.number)

    def _certified(self, event: journal.RoundCertified) -> None:
        engine = self.engine
        assert engine is not None
        entry = engine.peers.lineage.entry(bytes.fromhex(event.certificate))
        raw = entry.certificate.raw if entry is not None else b""
        self.say(
            Certified,
            number=event.number,
            hash=event.certificate,
            state=event.state_digest,
            seconds=event.phase_seconds,
            raw=raw,
        )
        # This is the last certificate of the path: the anchor is that of this certificate now.
        if event.state_digest:
            for dump in [dump for dump in self._dumps if dump.number <= event.number]:
                self._dumps.remove(dump)
                self._dump(dump)

    # ---------------------------------------------------------------- strikes

    def _came_to(self, step: str, number: int) -> None:
        strike = self._strike
        if strike is None or strike.step != step or number < strike.number:
            return
        self._in_step_since = time.monotonic()
        if strike.after_s <= 0:
            self._hit(strike)
        else:
            self._timer.set()

    def _left_step(self) -> None:
        if self._strike is not None and self._in_step_since is not None:
            self._hit(self._strike)

    def _hit(self, strike: Strike) -> None:
        since = self._in_step_since
        self._strike, self._in_step_since = None, None
        state = self.engine.state if self.engine else None
        late_s = time.monotonic() - since if since is not None else 0.0
        number = state.number if state else 0
        leads = state is not None and state.leads
        self.say(
            StrikeReport,
            kind=strike.kind,
            step=strike.step,
            number=number,
            leads=leads,
            late_s=late_s,
        )
        os.kill(os.getpid(), SIGNALS[strike.kind])

    async def strike_late(self) -> None:
        """Carry out strikes that wait for some time in their step."""
        while True:
            await self._timer.wait()
            self._timer = trio.Event()
            strike = self._strike
            if strike is not None:
                await trio.sleep(strike.after_s)
                if self._strike is strike and self._in_step_since is not None:
                    self._hit(strike)

    # ---------------------------------------------------------------- commands

    async def obey(self, source: int) -> None:
        """Carry out commands until the harness is gone."""
        buffer = b""
        async with trio.lowlevel.FdStream(source) as pipe:
            while data := await pipe.receive_some(MAX_LINE_BYTES):
                buffer += data
                *commands, buffer = buffer.split(b"\n")
                for command in commands:
                    self._obey(decode_command(command))
        # Nobody is left to notify, and what is durable is durable.
        os._exit(0)

    def _obey(self, command: Strike | Dump) -> None:
        if isinstance(command, Strike):
            self._strike = command
        elif command.number == 0:
            self._dump(command)
        else:
            self._dumps.append(command)

    def _dump(self, dump: Dump) -> None:
        store = self.engine.state_store if self.engine else None
        if store is None:
            self.say(Remark, text="no anchor to dump yet")
            return
        anchor = store.anchor
        # The file is complete before it is announced: only this thread changes the anchor.
        with Path(dump.path).open("wb") as file:
            file.write(anchor.value.astype("<f4", copy=False).data)
            file.write(anchor.momentum.astype("<f4", copy=False).data)
        self.say(Dumped, number=store.tip.number, hash=store.tip.hash.hex(), path=dump.path)
