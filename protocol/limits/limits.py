"""What a volunteer allows, and what the machine measures of itself."""

from __future__ import annotations

import msgspec

from protocol.limits.hours import Hours


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits that pause training. 0 means no limit.

    `idle_s` is how long nobody may have used the machine before training begins.
    """

    hours: Hours = Hours()
    # The hours as the volunteer wrote them, for sentences.
    hours_text: str = ""
    idle_s: float = 0.0
    on_battery: bool = False
    temperature_c: float = 0.0
    power_w: float = 0.0
    disk_bytes: int = 0


class Readings(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine measures of itself at one moment. None means: it cannot tell.

    `minute` is the local minute of the week, from Monday 00:00. `idle_s` is how long nobody used a
    keyboard or a mouse. `power_w` is the mean over about the last minute, of the device that
    trains. `temperature_c` is that of the warmest processor. `home_bytes` is what the node's home
    holds.
    """

    minute: int
    idle_s: float | None = None
    on_battery: bool | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    home_bytes: int | None = None


class LimitPause(msgspec.Struct, frozen=True, kw_only=True):
    """Why one limit pauses training.

    `limit` is the name of its setting in `[limits]`. `until` says when it ends, in words after
    "until"; `reason` is what was measured, and the limit.
    """

    limit: str
    until: str
    reason: str
