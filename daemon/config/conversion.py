"""Turns the raw value of a setting into its type, or says in plain words what it must be."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect

from daemon.home.layout import is_unicode

# A longer wrong value is cut in the message.
SHOWN_CHARS = 60


def convert_setting(raw: Any, kind: Any, *, strict: bool, secret: bool) -> Any:
    """Return `raw` as a value of the type `kind`.

    Args:
        raw: The value of a flag, a variable or a config file.
        kind: The setting's type, with its `msgspec.Meta`.
        strict: Whether numbers and lists must have their own types, as in TOML. Otherwise they may
            be text, with commas between the parts of a list.
        secret: Whether the message must not repeat the value.

    Raises:
        ValueError: The value does not fit; the text says what it must be.
    """
    if kind == tuple[str, ...] and isinstance(raw, str):
        if strict:
            shown = "..." if secret else raw
            raise ValueError(f"it is a list: write [{msgspec.json.encode(shown).decode()}]")
        raw = tuple(part.strip() for part in raw.split(",") if part.strip())
    texts = raw if isinstance(raw, tuple | list) else [raw]
    if any(isinstance(text, str) and not is_unicode(text) for text in texts):
        raise ValueError("it is not UTF-8 text")
    try:
        return msgspec.convert(raw, kind, strict=strict)
    except (msgspec.ValidationError, ValueError) as error:
        wanted = _wanted(inspect.type_info(kind))
        if not wanted:
            raise ValueError(str(error)) from None
        raise ValueError(f"it must be {wanted}; got {_shown(raw, secret)}") from None


def _wanted(kind: inspect.Type) -> str:
    """Return what a value of this type is, for a sentence."""
    match kind:
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most}"
        case inspect.FloatType(ge=least, le=most) if least is not None and most is not None:
            return f"a number from {least:g} to {most:g}"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType(values=values):
            return " or ".join(str(value) for value in values)
        case inspect.StrType(max_length=most) if most is not None:
            return f"a text of at most {most} characters"
        case inspect.StrType():
            return "a text"
        case inspect.VarTupleType():
            return "a list of texts"
    return ""


def _shown(raw: Any, secret: bool) -> str:
    if secret:
        return "another kind of value"
    text = str(raw).lower() if isinstance(raw, bool) else repr(raw)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."
