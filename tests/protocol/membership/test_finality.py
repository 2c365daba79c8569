"""Since when a node has held its certificates, and which of them are final."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.disk.slots_file import MAX_BODY_BYTES
from protocol.membership.finality import (
    FINAL_S,
    HELD_EVERY_S,
    HELD_KEPT,
    has_final,
    held_with,
    is_final,
    moved_to_clock,
)
from protocol.ports.disk_records import HeldCertificate


def name(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.mark.parametrize(("held_s", "final"), [(FINAL_S - 1, False), (FINAL_S, True)])
def test_is_final_after_a_day(held_s: float, final: bool) -> None:
    assert is_final(1000.0, 1000.0 + held_s) is final


GAPS = st.lists(st.floats(0.5, 40_000.0), min_size=1, max_size=60)


@given(gaps=GAPS, repeats=st.integers(1, 40))
def test_held_with_finds_what_every_time_of_adoption_finds_but_forty_minutes(
    gaps: list[float], repeats: int
) -> None:
    """Whatever follows a certificate, the kept times say when one after it became final."""
    now, held, every = 0.0, (), []
    for place, gap in enumerate(gaps * repeats):
        now += gap
        held = held_with(held, name(place), now)
        every.append(now)
    assert len(held) <= HELD_KEPT
    names = [name(place) for place in range(len(every))]
    for since in range(0, len(every), max(1, len(every) // 20)):
        own = frozenset(names[since:])
        assert has_final(held, own, now) <= is_final(every[since], now)
        if is_final(every[since], now - HELD_EVERY_S):
            assert has_final(held, own, now)


def test_held_with_keeps_the_time_of_a_certificate_that_is_adopted_again() -> None:
    held = held_with((), name(1), 5.0)
    assert held_with(held, name(1), 9.0) == held


def test_held_with_fits_a_day_of_short_rounds_into_a_slot() -> None:
    held: tuple[HeldCertificate, ...] = ()
    for round_number in range(18 * 3600):
        held = held_with(held, name(round_number), 1.75e9 + 5.0 * round_number)
    assert len(msgspec.msgpack.encode(held)) <= MAX_BODY_BYTES
    most = [HeldCertificate(certificate=name(n), since_s=1.75e9 + n / 7) for n in range(HELD_KEPT)]
    assert len(msgspec.msgpack.encode(most)) <= MAX_BODY_BYTES


def test_moved_to_clock_counts_a_time_in_the_future_as_now() -> None:
    held = (HeldCertificate(certificate=name(1), since_s=50.0),)
    assert moved_to_clock(held, 100.0, 500.0)[0].since_s == 150.0
    assert moved_to_clock(held, 1000.0, 500.0)[0].since_s == 500.0
