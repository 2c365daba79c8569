"""The pages of documentation, read as a list of fenced blocks.

The info string behind three backticks says what a test does with a block:

    sh                          run the commands; they must succeed
    sh background until="TEXT"  start the command, wait until it prints TEXT; stop it at the end
    sh run=after-round          wait until a round is certified, then run
    sh run=long                 run from the repository's root, with a long timeout
    sh norun                    needs a chain or a person: the commands must parse
    python file=NAME, toml file=NAME    write the file
    python run=after-round      wait until a round is certified, then run as a program

Blocks of other languages are for readers only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")],
    key=lambda page: page.as_posix(),
)

_FENCE = re.compile(r"^( *)```(.*)$")
_OPTION = re.compile(r'(\w+)(?:=("[^"]*"|\S+))?')


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One fenced block: its language, the options behind it, its text, and its first line."""

    language: str
    options: dict[str, str]
    text: str
    line: int

    @property
    def commands(self) -> list[str]:
        """The command lines, without comments and empty lines."""
        lines = (line.split("  #")[0].strip() for line in self.text.splitlines())
        return [line for line in lines if line and not line.startswith("#")]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of `page`, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        at += 1
        if not opening:
            continue
        indent, info = opening.groups()
        first = at
        while at < len(lines) and lines[at].strip() != "```":
            at += 1
        found = _OPTION.findall(info)
        yield Block(
            language=found[0][0] if found else "",
            options={name: value.strip('"') for name, value in found[1:]},
            text="\n".join(line.removeprefix(indent) for line in lines[first:at]) + "\n",
            line=first,
        )
        at += 1


def headings(page: Path) -> set[str]:
    """The anchors that links into `page` may name, as GitHub makes them from headings."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}
