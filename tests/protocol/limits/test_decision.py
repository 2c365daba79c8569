"""Which limits pause training, with the gap that keeps it from flapping."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.limits.decision import decide
from protocol.limits.hours import parse_hours
from protocol.limits.limits import LimitPause, Limits, Readings

NOON = Readings(minute=12 * 60)
ALL = Limits(
    hours=parse_hours("22:00-07:00"),
    hours_text="22:00-07:00",
    idle_s=600,
    temperature_c=80,
    power_w=200,
    disk_bytes=5_000_000_000,
)


def one(limits: Limits, readings: Readings, before: frozenset[str] = frozenset()) -> LimitPause:
    (pause,) = decide(limits, readings, before).pauses
    return pause


def test_decide_without_limits_pauses_nothing() -> None:
    assert decide(Limits(), NOON) == decide(Limits(), replace(NOON, on_battery=False))
    assert decide(Limits(), NOON).pauses == decide(Limits(), NOON).blind == ()


@pytest.mark.parametrize(
    ("limits", "readings", "sentence"),
    [
        (
            Limits(hours=ALL.hours, hours_text=ALL.hours_text),
            NOON,
            'until 22:00: hours = "22:00-07:00"',
        ),
        (
            Limits(idle_s=600),
            replace(NOON, idle_s=3.0),
            "until nobody used this machine for 10 min: somebody uses it: idle_minutes = 10",
        ),
        (
            Limits(),
            replace(NOON, on_battery=True),
            "until the machine is plugged in: it runs on its battery: on_battery = false",
        ),
        (
            Limits(temperature_c=80),
            replace(NOON, temperature_c=84.4),
            "until it is at most 70 C: the processor has 84 C: temperature_c = 80",
        ),
        (
            Limits(power_w=200),
            replace(NOON, power_w=250.2),
            "until the mean of a minute is at most 180 W: the device draws 250 W: power_w = 200",
        ),
        (
            Limits(disk_bytes=5_000_000_000),
            replace(NOON, home_bytes=6_000_000_000),
            "until it holds at most 4.8 GB: the home holds 6.0 GB: disk_gb = 5",
        ),
    ],
)
def test_decide_says_why_and_until_when(limits: Limits, readings: Readings, sentence: str) -> None:
    pause = one(limits, readings)
    assert f"until {pause.until}: {pause.reason}" == sentence


@pytest.mark.parametrize(
    ("limits", "name", "field", "warm", "cool"),
    [
        (Limits(temperature_c=80), "temperature_c", "temperature_c", 75.0, 69.0),
        (Limits(power_w=200), "power_w", "power_w", 190.0, 179.0),
        (Limits(disk_bytes=100), "disk_gb", "home_bytes", 98, 95),
    ],
)
def test_decide_waits_until_a_reading_is_clearly_below(
    limits: Limits, name: str, field: str, warm: float, cool: float
) -> None:
    """Between both values, a running node goes on and a paused one waits."""
    between, below = replace(NOON, **{field: warm}), replace(NOON, **{field: cool})
    assert not decide(limits, between).pauses
    assert one(limits, between, frozenset({name})).limit == name
    assert not decide(limits, below, frozenset({name})).pauses


def test_decide_names_the_limits_that_no_reading_supports() -> None:
    blind = decide(ALL, NOON).blind
    assert [text.split()[0] for text in blind] == [
        "limits.idle_minutes",
        "limits.temperature_c",
        "limits.power_w",
        "limits.disk_gb",
    ]
    assert all("has no effect on this machine" in text for text in blind)


@given(
    st.integers(0, 7 * 24 * 60 - 1),
    st.one_of(st.none(), st.floats(0, 1e9)),
    st.one_of(st.none(), st.booleans()),
    st.one_of(st.none(), st.floats(-50, 200)),
    st.one_of(st.none(), st.floats(0, 1e6)),
    st.one_of(st.none(), st.integers(0, 1 << 60)),
)
def test_decide_of_any_reading_settles(
    minute: int,
    idle_s: float | None,
    on_battery: bool | None,
    temperature_c: float | None,
    power_w: float | None,
    home_bytes: int | None,
) -> None:
    """The same reading again gives the same decision, whatever was paused before."""
    readings = Readings(
        minute=minute,
        idle_s=idle_s,
        on_battery=on_battery,
        temperature_c=temperature_c,
        power_w=power_w,
        home_bytes=home_bytes,
    )
    first = decide(ALL, readings)
    names = frozenset(pause.limit for pause in first.pauses)
    assert decide(ALL, readings, names) == first
