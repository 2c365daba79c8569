"""What manifests of earlier rules have, and what they do not.

A field that later rules added is in no bytes of earlier ones: their members would refuse it, and
the run would get another id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import asdict

RULES_3 = 3
"""The version that added the fields below."""

_ADDED: Mapping[str, tuple[str, ...]] = {
    "inner": ("warmup_samples", "decay", "final_factor", "total_samples"),
    "outer": ("momentum_warmup_samples",),
    "round": ("overlap", "min_seconds"),
}


def later_fields(fields: Any, rules: int) -> list[str]:
    """The dotted names of the fields that these rules do not have, in a manifest's fields.

    What is no manifest at all has none: the decoder says what is wrong with it.
    """
    if rules >= RULES_3 or not isinstance(fields, Mapping):
        return []
    return [
        f"{part}.{name}"
        for part, names in _ADDED.items()
        for name in names
        if isinstance(fields.get(part), Mapping) and name in fields[part]
    ]


def encoded(manifest: msgspec.Struct, rules: int) -> bytes:
    """Encode a manifest without the fields that its rules do not have.

    The bytes are those that releases wrote before the later fields existed. A record with optional
    fields has a map header of its own, so a dict in its place would change the bytes.
    """
    if rules >= RULES_3:
        return msgspec.msgpack.encode(manifest)
    names = manifest.__struct_fields__
    record = msgspec.defstruct("Fields", [(name, Any, UNSET) for name in names], kw_only=True)
    return msgspec.msgpack.encode(record(**{name: _kept(manifest, name) for name in names}))


def _kept(manifest: msgspec.Struct, name: str) -> Any:
    """A field's value; a part of the manifest without its later fields."""
    value = getattr(manifest, name)
    if name not in _ADDED:
        return value
    return {field: held for field, held in asdict(value).items() if field not in _ADDED[name]}
