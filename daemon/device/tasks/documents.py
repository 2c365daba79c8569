"""Reads documents for language models: docstrings of the standard library, text files or JSONL."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from daemon.device.tasks.corpus import LEFT_OUT, walk
from daemon.device.tasks.files import allowed_path
from protocol.errors import UserError

DOCSTRINGS = "docstrings"
# About 4,000 docstrings, 250,000 tokens of SmolLM2: hours of a demo, and read in three seconds.
DOCSTRING_BYTES = 1 << 20
# The texts and their tokens are held in memory. A larger set needs a task of its own.
FOLDER_BYTES = 256 << 20
# A docstring of a few words teaches nothing about sentences.
SHORTEST_CHARS = 80

Conversation = Callable[[list[dict[str, str]]], str]
"""Maps the messages of a conversation to text, by a model's chat template."""


def load_documents(
    name: str, data_folders: Sequence[str], *, field: str, limit: int, conversation: Conversation
) -> list[str]:
    """Load the documents that a manifest names.

    Args:
        name: "docstrings", or a file or folder inside `data_folders`. Each file is a document, and
            each line of a `.jsonl` file.
        data_folders: the folders that the node's owner lets runs read.
        field: the field of a JSON line that holds its text. A line without it may have `messages`,
            with `role` and `content`.
        limit: bytes of text after which reading stops; 0 means the default.
        conversation: turns messages into text.

    Raises:
        UserError: "DATA" where there is nothing to read, or for a line that is no document.
    """
    found: Iterable[str]
    if name == DOCSTRINGS:
        found, limit = docstrings(), limit or DOCSTRING_BYTES
    else:
        path = allowed_path(name, data_folders)
        files = [path] if path.is_file() else walk(path)
        found = _documents(files, field, conversation)
        limit = limit or FOLDER_BYTES
    documents: list[str] = []
    for text in found:
        documents.append(text)
        limit -= len(text)
        if limit <= 0:
            break
    if not documents:
        raise UserError(
            "DATA", f"There is no text in {name!r}.", why="no file could be read", exit_code=2
        )
    return documents


def docstrings() -> Iterator[str]:
    """Yield the docstrings of the standard library, without its tests, in order of files."""
    for file in walk(Path(sysconfig.get_path("stdlib")), ".py", LEFT_OUT):
        try:
            with warnings.catch_warnings():
                # Old modules have invalid escape sequences.
                warnings.simplefilter("ignore")
                tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text is not None and len(text) >= SHORTEST_CHARS:
                    yield text


def _documents(files: Iterable[Path], field: str, conversation: Conversation) -> Iterator[str]:
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if file.suffix == ".jsonl":
            yield from _lines(file, text, field, conversation)
        elif text.strip():
            yield text


def _lines(file: Path, text: str, field: str, conversation: Conversation) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise _no_document(file, number, f"it is not JSON: {error}") from None
        if isinstance(record, dict) and isinstance(record.get(field), str):
            yield record[field]
        elif isinstance(record, dict) and (messages := _messages(record.get("messages"))):
            yield conversation(messages)
        else:
            raise _no_document(file, number, f"it has no text in {field!r}, and no messages")


def _messages(found: object) -> list[dict[str, str]]:
    """Return the messages of a conversation; none where `found` is something else."""
    try:
        return msgspec.convert(found, list[dict[str, str]])
    except msgspec.ValidationError:
        return []


def _no_document(file: Path, number: int, why: str) -> UserError:
    return UserError(
        "DATA",
        f"Line {number} of {file} is not a document.",
        why=why,
        fix='write lines such as {"text": "..."}, or name the field in the option field',
        exit_code=2,
    )
