"""The nearest known name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.text.nearest import nearest

COMMANDS = ("start", "status", "peers", "stop", "observe", "session", "devnet", "simulate")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("statsu", "status"),
        ("STATUS", "status"),
        ("obsrve", "observe"),
        ("peer", "peers"),
        ("simul", "simulate"),
        # Two letters differ from "session".
        ("version", ""),
        ("frobnicate", ""),
        ("", ""),
        ("s", ""),
        ("x" * 100_000, ""),
    ],
)
def test_nearest_is_near_or_nothing(typed: str, meant: str) -> None:
    assert nearest(typed, COMMANDS) == meant


@given(st.sampled_from(COMMANDS), st.data())
def test_nearest_finds_every_name_with_two_neighbours_exchanged(
    name: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(name) - 2))
    typed = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
    assert nearest(typed, [name]) == name
