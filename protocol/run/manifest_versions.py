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

from protocol.rules.versions import RULES_4

RULES_3 = 3
"""The version that added the first fields below."""

_ADDED: Mapping[int, Mapping[str, tuple[str, ...]]] = {
    RULES_3: {
        "inner": ("warmup_samples", "decay", "final_factor", "total_samples"),
        "outer": ("momentum_warmup_samples",),
        "round": ("overlap", "min_seconds"),
    },
    # The name of a part alone stands for the whole part.
    RULES_4: {
        "founders": (),
        "trust": (),
        "initial": (),
        "inner": ("optimizer", "momentum", "nesterov", "accumulate"),
        "round": ("exchange_share",),
    },
}
"""The fields that each version added."""


# A run of long rounds with many steps each may be better with (0.7, 0.9), the values of DiLoCo
# (https://arxiv.org/abs/2311.08105).
_NEW_DEFAULTS: Mapping[str, Any] = {
    "codec": "int4",
    "outer": {"learning_rate": 1.0, "momentum": 0.0},
}
"""What a file of rules 3 and later means where it does not say.

Measured: a byte GPT of 4.8 M parameters, four peers, 100 Mbit/s, held-out loss after 100 s: 2.81
with float32 and (0.7, 0.9), 2.77 with int4, 2.59 with int4 and (1.0, 0.0), at a fifth of the bytes.
"""


def with_defaults(tables: Mapping[str, Any], rules: int) -> dict[str, Any]:
    """A file's tables with the defaults that its rules have beyond those of the records.

    Manifests travel with all fields, so these defaults concern files alone. hivemind has no int4.
    """
    if rules < RULES_3 or tables.get("engine", "native") != "native":
        return dict(tables)
    outer = tables.get("outer", {})
    if not isinstance(outer, Mapping):
        return dict(tables)
    return {**_NEW_DEFAULTS, **tables, "outer": {**_NEW_DEFAULTS["outer"], **outer}}


def later_fields(fields: Any, rules: int) -> list[str]:
    """The dotted names of the fields that these rules do not have, in a manifest's fields.

    What is no manifest at all has none: the decoder says what is wrong with it.
    """
    if not isinstance(fields, Mapping):
        return []
    return [
        f"{part}.{name}" if name else part
        for part, names in _later_parts(rules).items()
        for name in names or ("",)
        if (not name and part in fields)
        or (isinstance(fields.get(part), Mapping) and name in fields[part])
    ]


def encoded(manifest: msgspec.Struct, rules: int) -> bytes:
    """Encode a manifest without the fields that its rules do not have.

    The bytes are those that releases wrote before the later fields existed. A record with optional
    fields has a map header of its own, so a dict in its place would change the bytes.
    """
    later = _later_parts(rules)
    if not later:
        return msgspec.msgpack.encode(manifest)
    names = [name for name in manifest.__struct_fields__ if name not in later or later[name]]
    record = msgspec.defstruct("Fields", [(name, Any, UNSET) for name in names], kw_only=True)
    values = {name: _kept(getattr(manifest, name), later.get(name, ())) for name in names}
    return msgspec.msgpack.encode(record(**values))


def _later_parts(rules: int) -> dict[str, tuple[str, ...]]:
    """The parts with fields that these rules do not have; no names where the part is all new."""
    later: dict[str, tuple[str, ...]] = {}
    for version, parts in _ADDED.items():
        if version > rules:
            for part, names in parts.items():
                later[part] = (*later.get(part, ()), *names)
    return later


def _kept(value: Any, later: tuple[str, ...]) -> Any:
    """A field's value; a part of the manifest without its later fields."""
    if not later:
        return value
    return {field: held for field, held in asdict(value).items() if field not in later}
