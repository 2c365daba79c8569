"""Reports which layers of a model the swarm serves, for the status of a node or an observer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from protocol.digest import Digest
from protocol.inference.announcement import KnownStage
from protocol.inference.coverage import missing_layers, name_layers
from protocol.inference.layers import LayerRange
from protocol.inference.model import ModelManifest
from protocol.journal import CoverageChanged, CoverageReport, JournalEvent, ServedStage


class CoverageReporter:
    """Reports the coverage of one model, and says once when layers go missing or come back."""

    def __init__(
        self,
        model: Digest,
        manifest: ModelManifest,
        record: Callable[[JournalEvent], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives monotonic seconds."""
        self._model, self._name, self._layers = model.hex(), manifest.name, manifest.layers
        self._record, self._clock = record, clock
        self._last: CoverageReport | None = None
        # Words for what nobody serves; None before the first report.
        self._missing: str | None = None
        self._missing_since = 0.0

    def report(self, stages: Sequence[KnownStage]) -> None:
        """Record the stages, if anything changed."""
        found = CoverageReport(
            model=self._model,
            name=self._name,
            layers=self._layers,
            stages=tuple(
                ServedStage(
                    peer=one.peer,
                    name=one.stage.name,
                    first=one.stage.layers.first,
                    stop=one.stage.layers.stop,
                    layer_tokens_per_s=one.stage.layer_tokens_per_s,
                    cache_tokens_free=one.stage.cache_tokens_free,
                )
                for one in stages
            ),
        )
        if found != self._last:
            self._last = found
            self._record(found)
        gaps = missing_layers(
            (one.stage.layers for one in stages), LayerRange(first=0, stop=self._layers)
        )
        missing = name_layers(gaps) if gaps else ""
        if missing == self._missing:
            return
        was_missing, self._missing = bool(self._missing), missing
        gap_s = 0.0
        if missing and not was_missing:
            self._missing_since = self._clock()
        elif was_missing and not missing:
            gap_s = self._clock() - self._missing_since
        self._record(
            CoverageChanged(
                model=self._model,
                name=self._name,
                missing=missing,
                stages=len(stages),
                gap_s=gap_s,
            )
        )
