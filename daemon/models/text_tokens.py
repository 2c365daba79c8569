"""Maps text to tokens and back for served models. The only module that imports tokenizers, jinja2.

A tokenizer's file and a chat template may come from a peer. The file is data for a library in Rust.
The template runs in a sandbox, which reaches no attribute of Python and no file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from protocol.errors import UserError
from protocol.inference.model import ModelManifest
from protocol.ports.stage import ChatMessage, Tokenizer

BYTES = "bytes"
# Python's own limit. Some libraries lift the limit of their process to 10,000 calls. A template
# that calls itself then overflows the stack, which ends the process instead of the call.
TEMPLATE_DEPTH = 1000


class ByteTokenizer:
    """A token is a byte of UTF-8. Satisfies `Tokenizer`."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "surrogatepass"))

    def decode(self, tokens: Sequence[int]) -> str:
        # A stranger's manifest may have tokens that are no bytes. 255 is in no text of UTF-8.
        return bytes(min(token, 255) for token in tokens).decode("utf-8", "replace")

    def chat(self, messages: Sequence[ChatMessage]) -> str:
        raise ValueError(
            "the model has no template for chats, because it was trained on plain text"
        )


class FileTokenizer:
    """A tokenizer of Hugging Face's format. Satisfies `Tokenizer`."""

    def __init__(self, content: bytes, template: str) -> None:
        """Read a `tokenizer.json`. Raises `ValueError`."""
        # A late import: the package belongs to the extra "hf".
        from tokenizers import Tokenizer as Library  # noqa: PLC0415

        try:
            self._tokenizer: Any = Library.from_buffer(content)
        # The library raises plain exceptions.
        except Exception as error:  # noqa: BLE001
            raise ValueError(f"the tokenizer's file cannot be read: {error}") from None
        self._template = template

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text

    def chat(self, messages: Sequence[ChatMessage]) -> str:
        if not self._template:
            raise ValueError("the model has no template for chats")
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        given = [{"role": one.role, "content": one.content} for one in messages]
        try:
            with _limited_depth():
                return environment.from_string(self._template).render(
                    messages=given, add_generation_prompt=True
                )
        # The template is a stranger's program: it may also call itself without end, or ask for more
        # memory than there is.
        except (
            TemplateError,
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            AttributeError,
            RecursionError,
            MemoryError,
        ) as error:
            raise ValueError(f"the model's chat template refuses the messages: {error}") from None


@contextmanager
def _limited_depth() -> Iterator[None]:
    """Limit nested calls to TEMPLATE_DEPTH, also where a library has lifted Python's limit."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(min(usual, TEMPLATE_DEPTH))
    try:
        yield
    finally:
        sys.setrecursionlimit(usual)


def tokenizer_of(manifest: ModelManifest, content: bytes) -> Tokenizer:
    """Return the tokenizer of a model. `content` is its file; b"" where tokens are bytes.

    Raises `UserError`: "EXTRA" where the extra "hf" is missing, "MODEL" for an unreadable file.
    """
    if manifest.tokenizer == BYTES:
        return ByteTokenizer()
    if find_spec("tokenizers") is None:
        raise UserError(
            "EXTRA",
            f"Cannot read the tokenizer of {manifest.name}.",
            why="the package tokenizers is not installed",
            fix="pip install 'hypergpu[hf]'",
            exit_code=2,
        )
    try:
        return FileTokenizer(content, manifest.chat_template)
    except ValueError as error:
        raise UserError(
            "MODEL", f"The model {manifest.name} has no usable tokenizer.", why=str(error)
        ) from None


def _refuse(message: str) -> NoReturn:
    """Templates call this as `raise_exception`."""
    raise TemplateError(message)
