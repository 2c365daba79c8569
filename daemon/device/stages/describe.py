"""Describes a model by its content: the model manifest and the tokenizer. Worker process only."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import msgspec

from daemon.device.stages.messages import DescribeModel
from daemon.device.stages.weights.open_source import open_source
from daemon.device.stages.weights.run_file import RunFile
from daemon.device.stages.weights.shards import describe_shards
from daemon.device.stages.weights.source import WeightSource
from protocol.digest import digest
from protocol.errors import UserError
from protocol.inference.model import ModelManifest

TOKENIZER_FILE = "tokenizer.json"
_GENERATION_FILE = "generation_config.json"
_MAX_BYTES = 1 << 20


def describe_model(wanted: DescribeModel) -> ModelManifest:
    """Read all of a model's shards, write its tokenizer's file, and return the manifest.

    Raises `UserError`: "MODEL", and "EXTRA" where the extra "hf" is missing.
    """
    place = Path(wanted.source)
    source = open_source(place)
    if isinstance(source, RunFile):
        return _manifest(source, wanted.name, first_token=ord("\n"))
    if find_spec("transformers") is None:
        raise UserError(
            "EXTRA",
            f"Cannot read the tokenizer of {place}.",
            why="the package transformers is not installed",
            fix="pip install 'hypergpu[hf]'",
            exit_code=2,
        )
    # A late import: the package belongs to an extra, and takes seconds.
    from daemon.device.pretrained.causal_models import load_tokenizer  # noqa: PLC0415

    tokenizer = load_tokenizer(place)
    content = tokenizer.file()
    Path(wanted.tokenizer_file).write_bytes(content)
    return _manifest(
        source,
        wanted.name,
        first_token=tokenizer.end,
        end_tokens=tuple(sorted({tokenizer.end, *_more_ends(place)})),
        tokenizer=TOKENIZER_FILE,
        tokenizer_digest=digest(content),
        chat_template=tokenizer.template,
    )


class _GenerationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a folder's `generation_config.json` that a text's end depends on."""

    eos_token_id: int | tuple[int, ...] | None = None


def _more_ends(place: Path) -> tuple[int, ...]:
    """Return the tokens that the model's authors end a text with, where the folder names them."""
    path = place / _GENERATION_FILE
    if not path.is_file():
        return ()
    try:
        with path.open("rb") as stream:
            found = msgspec.json.decode(stream.read(_MAX_BYTES), type=_GenerationSettings)
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(
            "MODEL", f"{path} cannot be read.", why=str(error), fix="remove it", exit_code=2
        ) from None
    ends = found.eos_token_id
    return () if ends is None else (ends,) if isinstance(ends, int) else ends


def _manifest(source: WeightSource, name: str, **more: object) -> ModelManifest:
    made = source.architecture
    return msgspec.convert(
        {
            "name": name,
            "architecture": made.family,
            "layers": made.layers,
            "width": made.width,
            "vocabulary": made.vocabulary,
            "context": made.context,
            "config": msgspec.json.encode(made, order="sorted").decode(),
            "shards": describe_shards(source),
            **more,
        },
        ModelManifest,
        from_attributes=True,
    )
