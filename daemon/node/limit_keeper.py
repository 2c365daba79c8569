"""Keeps the limits that the volunteer set: pauses training, and lets it go on.

`protocol/limits` decides, `daemon/system` measures. The caps of bandwidth and memory are kept where
the bytes are: `daemon/network/paths/paced_stream.py` and the worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import trio

from daemon.config.settings import Config, LimitsConfig
from daemon.system.offload import in_abandonable_thread
from protocol.journal import JournalEvent, LimitsReport
from protocol.limits.decision import Decision, decide
from protocol.limits.hours import parse_hours
from protocol.limits.limits import Limits, Readings
from protocol.status.figures import size

# Between two looks. A processor heats up within seconds, and a person who comes back should not
# wait for the machine.
LOOK_S = 5.0


class Sensors(Protocol):
    """What measures the machine."""

    def read(self, limits: Limits) -> Readings:
        """Return what is measured now. May block for seconds."""


def limits_of(settings: LimitsConfig) -> Limits:
    """Return the limits that pause training, from the settings."""
    return Limits(
        hours=parse_hours(settings.hours),
        hours_text=settings.hours,
        idle_s=60 * settings.idle_minutes,
        on_battery=settings.on_battery,
        temperature_c=settings.temperature_c,
        power_w=settings.power_w,
        disk_bytes=int(1e9 * settings.disk_gb),
    )


def caps_of(settings: LimitsConfig) -> tuple[str, ...]:
    """Return sentences about what training may use."""
    caps = (
        (settings.upload_mbps, "upload at most {} Mbit/s", settings.upload_mbps),
        (settings.download_mbps, "download at most {} Mbit/s", settings.download_mbps),
        (settings.memory_gb, "the worker takes at most {}", size(1e9 * settings.memory_gb)),
    )
    return tuple(
        text.format(shown if isinstance(shown, str) else f"{shown:g}")
        for wanted, text, shown in caps
        if wanted
    )


class LimitKeeper:
    """Looks at the machine, and holds training while a limit says so."""

    def __init__(
        self, config: Config, sensors: Sensors, record: Callable[[JournalEvent], None]
    ) -> None:
        self._limits, self._caps = limits_of(config.limits), caps_of(config.limits)
        self._sensors, self._record = sensors, record
        self._decision = Decision()
        self._reported: LimitsReport | None = None

    @property
    def pauses(self) -> bool:
        """Whether a limit pauses training since the last look."""
        return bool(self._decision.pauses)

    async def look(self) -> None:
        """Measure the machine once, decide, and report what changed."""
        readings = await in_abandonable_thread(partial(self._sensors.read, self._limits))
        before = frozenset(pause.limit for pause in self._decision.pauses)
        self._decision = found = decide(self._limits, readings, before)
        report = LimitsReport(pauses=found.pauses, caps=self._caps, blind=found.blind)
        known = self._reported
        if _names(report) != (_names(known) if known is not None else ((), (), ())):
            self._reported = report
            self._record(report)

    async def run(self, hold: Callable[[bool], Awaitable[None]]) -> None:
        """Look until cancelled, and call `hold` with whether training is paused, if that changed.

        It is called at once where a limit pauses training already.
        """
        held = False
        while True:
            if self.pauses != held:
                held = self.pauses
                await hold(held)
            await trio.sleep(LOOK_S)
            await self.look()


def _names(report: LimitsReport) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """What must change for a new report: the measured figures change at every look."""
    pauses = tuple(f"{pause.limit} {pause.until}" for pause in report.pauses)
    return pauses, report.caps, report.blind
