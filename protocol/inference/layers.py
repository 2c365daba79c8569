"""A contiguous range of a model's layers."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.errors import UserError

# The deepest published language models have about 130 layers; the rest is a reserve.
MAX_LAYERS = 1024

Boundary = Annotated[int, Meta(ge=0, le=MAX_LAYERS)]
"""A place between two layers: boundary 5 is behind layer 4 and before layer 5."""

_RANGE = re.compile(r"(\d{1,6}):(\d{1,6})")


class LayerRange(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """The layers from `first` up to, but not including, `stop`.

    Layers count from 0. A range that begins at layer 0 includes the embedding, and one that ends
    at the last layer includes the final norm and the output matrix.
    """

    first: Boundary
    stop: Boundary

    def __post_init__(self) -> None:
        if not self.first < self.stop:
            raise ValueError(f"layers {self.first}:{self.stop} are no range")

    def __len__(self) -> int:
        return self.stop - self.first

    def __str__(self) -> str:
        return f"{self.first}:{self.stop}"

    def contains(self, other: LayerRange) -> bool:
        """Whether every layer of `other` is in this range."""
        return self.first <= other.first and other.stop <= self.stop


def parse_layers(text: str, layers: int) -> LayerRange:
    """Read a range as `a:b` of a model with `layers` layers.

    Raises:
        UserError: "LAYERS".
    """
    found = _RANGE.fullmatch(text.strip())
    first, stop = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 <= first < stop <= layers:
        raise UserError(
            "LAYERS",
            f"{text!r} is no range of layers.",
            why=f"the model has the layers 0 to {layers - 1}; a range a:b has the layers from a"
            " up to, but not including, b",
            fix=f"--layers 0:{layers} for the whole model",
            exit_code=2,
        )
    return LayerRange(first=first, stop=stop)
