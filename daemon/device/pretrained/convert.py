"""Converts a GGUF model to a folder of `save_pretrained`, in a process of its own.

    python -P -m daemon.device.pretrained.convert SOURCE_FOLDER TARGET_FOLDER

The folder appears when it is whole. Its tensors are float32, with the values of the GGUF file.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from daemon.device.pretrained.causal_models import load_model, load_tokenizer, save_model
from protocol.errors import UserError


def convert(source: Path, target: Path) -> None:
    """Write the model in `source` to `target`, which must not exist. Raises `UserError`."""
    draft = target.with_name(f"{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_model(load_model(source), draft)
    load_tokenizer(source).save(draft)
    draft.rename(target)


def main() -> None:
    source, target = (Path(argument) for argument in sys.argv[1:3])
    try:
        convert(source, target)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
