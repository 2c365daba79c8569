"""Turns what the workers of one node report into the reports of one trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from protocol.journal import (
    JournalEvent,
    TrainerReady,
    TrainerStopped,
    TrainingProgress,
    Warned,
)

# The code of warnings about one device of several.
DEVICE = "DEVICE"


class GroupEvents:
    """Gives each worker its own way to the journal.

    The trainer is ready when all workers were, and stops when no worker is up.
    """

    def __init__(self, devices: Sequence[str], on_event: Callable[[JournalEvent], None]) -> None:
        """`devices` are the names of the workers' devices, for people."""
        self._devices, self._on_event = tuple(devices), on_event
        self._ready: dict[int, TrainerReady] = {}
        self._up: set[int] = set()
        self._progress: dict[int, TrainingProgress] = {}

    def of(self, number: int) -> Callable[[JournalEvent], None]:
        """Return what worker `number` reports to."""
        return lambda event: self._receive(number, event)

    def warn(self, message: str) -> None:
        """Report a warning about one of the devices."""
        self._on_event(Warned(code=DEVICE, message=message))

    def _receive(self, number: int, event: JournalEvent) -> None:
        match event:
            case TrainerReady():
                self._ready[number] = event
                self._up.add(number)
                if len(self._ready) == len(self._devices):
                    self._on_event(self._joint_ready())
            case TrainerStopped():
                self._up.discard(number)
                self._progress.pop(number, None)
                self._stopped(self._devices[number], event)
            case TrainingProgress():
                self._progress[number] = event
                self._on_event(self._joint_progress())
            case _:
                self._on_event(event)

    def _joint_ready(self) -> TrainerReady:
        events = [self._ready[number] for number in sorted(self._ready)]
        names = [event.device for event in events]
        return TrainerReady(
            device=joint_name(names),
            parameters=events[0].parameters,
            threads=sum(event.threads for event in events),
        )

    def _stopped(self, device: str, event: TrainerStopped) -> None:
        if not self._up:
            self._on_event(replace(event, reason=f"{device}: {event.reason}"))
            return
        after = " The worker stays down." if event.for_good else ""
        fix = f" To fix it: {event.fix.rstrip('.')}." if event.fix else ""
        self.warn(
            f"The worker on {device} stopped, and the other devices train on:"
            f" {event.reason.rstrip('.')}.{after}{fix}"
        )

    def _joint_progress(self) -> TrainingProgress:
        events = self._progress.values()
        scored = [event for event in events if event.loss is not None and event.samples]
        samples = sum(event.samples for event in scored)
        loss_sum = sum((event.loss or 0.0) * event.samples for event in scored)
        return TrainingProgress(
            samples=sum(event.samples for event in events),
            loss=loss_sum / samples if samples else None,
            samples_per_second=sum(event.samples_per_second for event in events),
        )


def joint_name(names: Sequence[str]) -> str:
    """Return the name of several devices, for people."""
    return f"{len(names)} x {names[0]}" if len(set(names)) == 1 else ", ".join(names)
