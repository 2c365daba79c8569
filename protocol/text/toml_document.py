"""TOML files that people write: read whatever an editor made of them, and every mistake found at
once, with its line and the nearest name.

`read_toml` takes what editors add (a byte order mark, line ends of Windows) and names what it
cannot take (UTF-16, other encodings). `mistakes_in` compares the tables with the records that they
become.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import msgspec

from protocol.text.nearest import nearest

_HEADER = re.compile(r"\s*\[\s*([\w-]+)\s*\]\s*(#.*)?")
_KEY = re.compile(r"""\s*["']?([\w-]+)["']?\s*(?:\.\s*["']?([\w-]+)["']?\s*)?=""")
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
Lines = Mapping[str, int]
"""Where a key stands, by its dotted name; keys whose line is not certain are left out."""


def toml_text(raw: bytes) -> str:
    """The text of a file. Raises `ValueError` that says what to do with one that is no UTF-8."""
    if raw.startswith(_WIDE) or b"\0" in raw[:4]:
        raise ValueError("it is UTF-16 text; save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 text; save the file as UTF-8") from None


def read_toml(text: str) -> dict[str, Any]:
    """The tables in it. Raises `ValueError`."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def key_lines(text: str) -> Lines:
    """The line, from 1, of each key of the file and of its tables; tables within tables are not
    looked into.
    """
    found: dict[str, int] = {}
    twice: set[str] = set()
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            section = header[1]
            names = [section]
        elif key := _KEY.match(line):
            full = ".".join(part for part in (section, key[1], key[2]) if part)
            names = [full] if section or not key[2] else [key[1], full]
        else:
            continue
        for name in names:
            if name in found:
                twice.add(name)
            found[name] = number
    # Also met inside a string of several lines: then the line of neither is certain.
    return {name: number for name, number in found.items() if name not in twice}


class TomlMistake(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, and the name that was meant, where one is near."""

    why: str
    meant: str = ""

    def line(self) -> str:
        """All of it in one sentence."""
        return f"{self.why}; did you mean {self.meant!r}?" if self.meant else self.why


def mistakes_in(
    tables: Mapping[str, Any], record: type[msgspec.Struct], lines: Lines
) -> list[TomlMistake]:
    """Each thing that keeps `tables` from becoming a `record`; empty where nothing does."""
    found = list(_mistakes(tables, record, lines, list(_names(record)), ""))
    if not found:
        # What only the record as a whole sees.
        try:
            msgspec.convert(tables, record)
        except (msgspec.ValidationError, ValueError) as error:
            found.append(TomlMistake(why=str(error)))
    return found


def _mistakes(
    tables: Mapping[str, Any],
    record: type[msgspec.Struct],
    lines: Lines,
    known: list[str],
    prefix: str,
) -> Iterable[TomlMistake]:
    fields = {field.name: field for field in msgspec.structs.fields(record)}
    for key in tables:
        if key not in fields:
            name = f"{prefix}{key}"
            meant = suggestion(name, known)
            # Within its own table a key is written without the table's name.
            own = (
                meant.removeprefix(prefix)
                if meant.rpartition(".")[0] == prefix.rstrip(".")
                else meant
            )
            yield TomlMistake(why=f"{place(lines, name)}there is no setting {name!r}", meant=own)
    for name, field in fields.items():
        full = f"{prefix}{name}"
        if name not in tables:
            if field.required:
                yield TomlMistake(why=f"{full} is missing")
            continue
        part = _record_of(field.type)
        if part is not None and isinstance(tables[name], dict):
            yield from _mistakes(tables[name], part, lines, known, f"{full}.")
            continue
        try:
            msgspec.convert(tables[name], field.type)
        except (msgspec.ValidationError, ValueError) as error:
            yield TomlMistake(why=f"{place(lines, full)}{full}: {error}")


def place(lines: Lines, name: str) -> str:
    """`line 4: `, or nothing where the line is not certain."""
    return f"line {lines[name]}: " if name in lines else ""


def suggestion(name: str, known: Iterable[str]) -> str:
    """The dotted name that was most likely meant, or nothing."""
    known = list(known)
    own = name.rpartition(".")[2]
    # The right key in the wrong table, then a typing error in the whole name, then one in the key
    # alone.
    same = [full for full in known if full.rpartition(".")[2] == own]
    meant = (same[0] if same else "") or nearest(name, known)
    if not meant:
        by_own = {full.rpartition(".")[2]: full for full in reversed(known)}
        meant = by_own.get(nearest(own, by_own), "")
    return meant


def _record_of(kind: Any) -> type[msgspec.Struct] | None:
    """The record in a field's type, which may be optional."""
    for part in (kind, *get_args(kind)):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part
    return None


def _names(record: type[msgspec.Struct], prefix: str = "") -> Iterable[str]:
    for field in msgspec.structs.fields(record):
        yield f"{prefix}{field.name}"
        part = _record_of(field.type)
        if part is not None:
            yield from _names(part, f"{prefix}{field.name}.")
