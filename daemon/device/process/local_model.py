"""Opens a model on this machine for serving: its manifest, its tokenizer, and its stages.

A process of its own reads all of the model once, for the digests. It takes about a second for each
gigabyte, and the time to import torch.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from daemon.children.messages import CommandDone
from daemon.device.process.stage_process import StageProcess
from daemon.device.process.stage_worker import StageWorker
from daemon.device.settings import WorkerSettings
from daemon.device.stages.messages import DescribeModel, ExportShards, LoadStage, ModelDescribed
from daemon.models.text_tokens import tokenizer_of
from daemon.system.offload import in_thread
from protocol.errors import UserError
from protocol.inference.layers import LayerRange
from protocol.inference.model import ModelManifest
from protocol.ports.stage import Stage, Tokenizer

_TOKENIZER_FILE = "tokenizer.json"
# The name of a model, which people see. A manifest allows 64 characters.
MAX_NAME_CHARS = 64


class ModelOnDisk:
    """Satisfies `LocalModel`."""

    def __init__(
        self,
        source: Path,
        manifest: ModelManifest,
        tokenizer_file: bytes,
        settings: WorkerSettings,
    ) -> None:
        """Keep what `open_local_model` found."""
        self._source, self._manifest = source, manifest
        self._tokenizer_file, self._settings = tokenizer_file, settings
        self._tokenizer = tokenizer_of(manifest, tokenizer_file)

    @property
    def source(self) -> Path:
        """What the processes load."""
        return self._source

    @property
    def manifest(self) -> ModelManifest:
        return self._manifest

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def tokenizer_file(self) -> bytes:
        return self._tokenizer_file

    @asynccontextmanager
    async def _running(self, stage: StageWorker) -> AsyncIterator[Stage]:
        async with stage.running():
            yield stage

    async def export(self, names: Sequence[str], folder: Path) -> None:
        begin = ExportShards(source=str(self._source), names=tuple(names), folder=str(folder))
        process = StageProcess(self._settings)
        await process.run(begin, self._settings.load_timeout_s)
        if process.unable is not None:
            raise process.unable
        if not isinstance(process.answer, CommandDone):
            raise UserError("WORKER", "The model's shards were not written.", why=process.why())

    def stage(self, layers: LayerRange, cache_tokens: int) -> AbstractAsyncContextManager[Stage]:
        begin = LoadStage(
            source=str(self._source),
            layers=layers,
            cache_tokens=cache_tokens,
            digests={shard.name: shard.digest for shard in self._manifest.shards},
            settings=self._settings,
        )
        return self._running(StageWorker(begin, self._manifest))


async def open_local_model(source: Path, name: str, settings: WorkerSettings) -> ModelOnDisk:
    """Read a model once, and return it.

    Args:
        source: an absolute path to a folder of `save_pretrained`, a GGUF file, a folder with one
            GGUF file, or a file of `hypergpud export`.
        name: what people call the model. It is cut after `MAX_NAME_CHARS`.
        settings: for the processes that compute.

    Raises:
        UserError: "MODEL" for what cannot be served, "EXTRA" where the extra "hf" is missing,
            "WORKER" where the process dies.
    """
    with tempfile.TemporaryDirectory(prefix="hypergpu-") as folder:
        tokenizer_file = Path(folder) / _TOKENIZER_FILE
        begin = DescribeModel(
            source=str(source), name=name[:MAX_NAME_CHARS], tokenizer_file=str(tokenizer_file)
        )
        process = StageProcess(settings)
        await process.run(begin, settings.load_timeout_s)
        if process.unable is not None:
            raise process.unable
        if not isinstance(process.answer, ModelDescribed):
            raise UserError(
                "WORKER", f"The model {source} was not read.", why=process.why(), fix="try again"
            )
        content = await in_thread(lambda: _content(tokenizer_file))
    return ModelOnDisk(source, process.answer.manifest, content, settings)


def _content(file: Path) -> bytes:
    """Return a file's content; b"" where tokens are bytes, for which no file was written."""
    return file.read_bytes() if file.exists() else b""
