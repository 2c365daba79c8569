"""A status as terminal text."""

from __future__ import annotations

import re
import subprocess
import sys

import msgspec
import pytest

from daemon.cli.terminal.columns import columns
from daemon.cli.terminal.ink import ago
from daemon.cli.terminal.peers_text import peers_text
from daemon.cli.terminal.status_text import status_text
from daemon.observer.page_lists import peers_table
from protocol import journal
from protocol.status import StatusState, fold, status_at
from tests.story import AT, HOSTILE, PEERS, day, folded, report, started

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("role", ["node", "observer"])
def test_status_text_begins_with_the_verdict_and_colour_changes_no_word(role: str) -> None:
    status = status_at(folded(day(role)), AT)
    plain, colored = status_text(status, color=False), status_text(status, color=True)
    assert plain.splitlines()[0].endswith(status.verdict)
    assert ANSI.sub("", colored) == plain
    assert "\x1b" not in plain
    assert colored != plain
    for words in ("stdlib-gpt", "round 6", "3 unsigned", "no chain"):
        assert words in plain


def test_status_text_and_peers_text_of_an_empty_status() -> None:
    status = status_at(StatusState(), AT)
    assert status_text(status, color=False).startswith("i Starting")
    assert peers_text(status, color=False) == "No peer is known at the moment."


def test_peers_text_has_one_line_for_each_peer_in_columns() -> None:
    status = status_at(folded(day()), AT)
    lines = peers_text(status, color=False).splitlines()
    assert len(lines) == 1 + len(status.peers)
    path = lines[0].index("PATH")
    assert [line[path : path + 7].strip() for line in lines[1:]] == [
        "direct",
        "relayed",
        "direct",
        "none",
    ]
    assert ANSI.sub("", peers_text(status, color=True)).splitlines() == lines


def test_status_text_has_no_control_characters_of_other_peers() -> None:
    wild = msgspec.structs.replace(
        report(3), name=HOSTILE, phase=HOSTILE, role=HOSTILE, device=HOSTILE
    )
    status = status_at(folded([started(), wild]), AT)
    for text in (peers_text(status, color=False), status_text(status, color=False)):
        assert all(line.isprintable() for line in text.splitlines())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "now"),
        (0.5, "now"),
        (12, "12 s ago"),
        (61, "1 min ago"),
        (7200, "2 h ago"),
        (2e5, "2 d ago"),
    ],
)
def test_ago(seconds: float, words: str) -> None:
    assert ago(AT - seconds, AT) == words


def test_status_text_imports_nothing_heavy() -> None:
    heavy = ("rich", "cryptography", "numpy", "trio", "aiohttp", "asyncio")
    code = "import sys, daemon.cli.terminal.status_text; "
    code += f"print(*[m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert found.stdout.strip() == ""


@pytest.mark.parametrize("width", [40, 60, 80, 260])
def test_status_text_and_peers_text_fit_the_terminal(width: int) -> None:
    wide = "日本" * 32
    status = status_at(folded(day()), AT)
    long = "The disk refuses to write: no space. " * 9
    status = msgspec.structs.replace(status, verdict=long)
    addresses = [
        word
        for line in status_text(status, color=False).split()
        for word in line.split()
        if word.startswith("/ip4/")
    ]
    for line in status_text(status, color=False, width=width).splitlines():
        assert columns(line) <= width or any(address in line for address in addresses), line
    peers = status_at(
        folded([started(), msgspec.structs.replace(report(3), name=wide), report(4)]), AT
    )
    lines = peers_text(peers, color=False, width=width).splitlines()
    assert len(lines) == 1 + len(peers.peers) == 3
    # Each cell keeps eight columns, so that the narrowest table is wider than a narrow terminal.
    assert all(columns(line) <= max(width, 96) for line in lines)
    assert any(line.startswith(wide if width == 260 else "日本日…") for line in lines)


def test_peers_text_and_page_name_lost_peers_with_the_reason() -> None:
    state = folded(day())
    fold(state, journal.PeerDown(at=AT, peer=PEERS[1], reason="the connection timed out"))
    fold(state, journal.PeerForgotten(at=AT + 20, peer=PEERS[2], silent_s=20.0))
    status = status_at(state, AT + 60)
    lines = peers_text(status, color=False).splitlines()[-2:]
    assert lines == [
        "✕ kitchen was lost 1 min ago: the connection timed out",
        "✕ basement-4090 was lost 40 s ago: it was silent for 20 s",
    ]
    page = peers_table(status)
    assert page.count('class="gone"') == 2
    assert "lost: it was silent for 20 s" in page
