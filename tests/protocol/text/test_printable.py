"""Text that strangers choose never moves a cursor on its way to a terminal."""

from __future__ import annotations

import io
import logging

import msgspec
import pytest

from daemon.cli.invocation import Invocation
from daemon.logs import PlainFormatter
from protocol.errors import MOST_FAULT_CHARS, PeerFault, UserError
from protocol.run.manifest import Manifest, SignedManifest
from protocol.run.manifest_file import parse_manifest
from protocol.text.printable import MOST_CHARS, printable

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\u200b\r\b\ud800"


def prints(text: str) -> bool:
    return all(line.isprintable() for line in text.replace("\t", " ").split("\n"))


def test_printable_replaces_what_a_terminal_would_execute() -> None:
    assert prints(printable(EVIL))
    assert (
        printable("owned\nline two\tand a tab: 模型 é 👍")
        == "owned\nline two\tand a tab: 模型 é 👍"
    )
    assert len(printable("x" * (2 * MOST_CHARS))) == MOST_CHARS


def test_errors_of_peers_and_files_print() -> None:
    assert prints(str(UserError("CODE", EVIL, why=EVIL, fix=EVIL)))
    fault = PeerFault("malformed", EVIL * 1000)
    assert prints(str(fault))
    assert len(str(fault)) <= MOST_FAULT_CHARS


def test_log_lines_print() -> None:
    record = logging.LogRecord("daemon", logging.WARNING, "", 0, "a peer said %s", (EVIL,), None)
    assert prints(PlainFormatter().format(record))


def test_say_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    Invocation().say(f"Run {EVIL}")
    assert prints(out.getvalue())


@pytest.mark.parametrize("field", ["name", "task", "engine", "codec", "chain"])
def test_an_unprintable_manifest_is_refused_with_a_printable_message(field: str) -> None:
    fields = msgspec.to_builtins(Manifest(name="run", task="simple_cnn"))
    fields[field] = "run\x1b[2J"
    with pytest.raises(UserError) as read:
        SignedManifest(body=msgspec.msgpack.encode(fields)).open()
    assert prints(str(read.value))
    assert field in str(read.value)
    text = "\n".join(
        f"{key} = {msgspec.json.encode(fields[key]).decode()}"
        for key in ("name", "task", "engine", "codec", "chain")
    )
    with pytest.raises(UserError) as parsed:
        parse_manifest(text, "run.toml")
    assert prints(str(parsed.value))


def test_an_unprintable_field_is_reported_printably() -> None:
    fields = {**msgspec.to_builtins(Manifest(name="run", task="simple_cnn")), EVIL[:20]: 1}
    with pytest.raises(UserError) as error:
        SignedManifest(body=msgspec.msgpack.encode(fields)).open()
    assert prints(str(error.value))
