"""Which limits pause training now, and until when. Pure.

A limit that paused training lets it go on only when the reading is clearly below it. Without that
gap, training would begin and pause at every look.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from protocol.limits.hours import WEEK_MINUTES, minute_text
from protocol.limits.limits import LimitPause, Limits, Readings
from protocol.status.figures import duration, size

# A processor of 80 C cools by 10 C within a minute of rest.
COOLER_C = 10.0
# The mean over a minute follows a pause within half a minute.
CALMER_SHARE = 0.9
# Above the files that come and go with each round.
ROOMIER_SHARE = 0.95


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What the limits say at one moment: `pauses` in the order of the settings.

    `blind` names each limit that cannot be kept, with the reason: its reading is missing.
    """

    pauses: tuple[LimitPause, ...] = ()
    blind: tuple[str, ...] = ()


def decide(limits: Limits, readings: Readings, before: frozenset[str] = frozenset()) -> Decision:
    """Return which limits pause training.

    Args:
        limits: What the volunteer allows.
        readings: What the machine measures now.
        before: The names of the limits that paused training at the last look.
    """
    return Decision(
        pauses=tuple(_pauses(limits, readings, before)), blind=tuple(_blind(limits, readings))
    )


def _pauses(limits: Limits, now: Readings, before: frozenset[str]) -> Iterator[LimitPause]:
    if not limits.hours.allows(now.minute):
        ahead = limits.hours.next_change(now.minute)
        assert ahead is not None, "hours that forbid a minute allow another one"
        yield LimitPause(
            limit="hours",
            until=minute_text((now.minute + ahead) % WEEK_MINUTES, now.minute),
            reason=f'hours = "{limits.hours_text}"',
        )
    if limits.idle_s and now.idle_s is not None and now.idle_s < limits.idle_s:
        yield LimitPause(
            limit="idle_minutes",
            until=f"nobody used this machine for {duration(limits.idle_s)}",
            reason=f"somebody uses it: idle_minutes = {limits.idle_s / 60:g}",
        )
    if not limits.on_battery and now.on_battery:
        yield LimitPause(
            limit="on_battery",
            until="the machine is plugged in",
            reason="it runs on its battery: on_battery = false",
        )
    most_c = limits.temperature_c - (COOLER_C if "temperature_c" in before else 0.0)
    if limits.temperature_c and now.temperature_c is not None and now.temperature_c > most_c:
        yield LimitPause(
            limit="temperature_c",
            until=f"it is at most {limits.temperature_c - COOLER_C:.0f} C",
            reason=f"the processor has {now.temperature_c:.0f} C:"
            f" temperature_c = {limits.temperature_c:g}",
        )
    most_w = limits.power_w * (CALMER_SHARE if "power_w" in before else 1.0)
    if limits.power_w and now.power_w is not None and now.power_w > most_w:
        yield LimitPause(
            limit="power_w",
            until=f"the mean of a minute is at most {CALMER_SHARE * limits.power_w:.0f} W",
            reason=f"the device draws {now.power_w:.0f} W: power_w = {limits.power_w:g}",
        )
    most = limits.disk_bytes * (ROOMIER_SHARE if "disk_gb" in before else 1.0)
    if limits.disk_bytes and now.home_bytes is not None and now.home_bytes > most:
        yield LimitPause(
            limit="disk_gb",
            until=f"it holds at most {size(int(ROOMIER_SHARE * limits.disk_bytes))}",
            reason=f"the home holds {size(now.home_bytes)}: disk_gb = {limits.disk_bytes / 1e9:g}",
        )


def _blind(limits: Limits, now: Readings) -> Iterator[str]:
    wants = (
        ("idle_minutes", limits.idle_s, now.idle_s, "nothing tells when somebody uses it"),
        ("temperature_c", limits.temperature_c, now.temperature_c, "no sensor can be read"),
        ("power_w", limits.power_w, now.power_w, "no meter of its device can be read"),
        ("disk_gb", limits.disk_bytes, now.home_bytes, "the home cannot be measured"),
    )
    for name, wanted, seen, why in wants:
        if wanted and seen is None:
            yield f"limits.{name} has no effect on this machine: {why}"
