"""A benchmark's group that does not form is restarted, and a missing reference is a failure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from daemon.cli.main import cli
from protocol.errors import Unreachable
from simulator.bench.allreduce import retry
from simulator.bench.allreduce.benchmark import measure
from simulator.bench.allreduce.cell import Cell, CellRound
from simulator.bench.allreduce.cell_record import without_figure


def round_of(*, grouped: bool) -> CellRound:
    failure = "" if grouped else "no group formed within 30 s"
    return CellRound(
        seconds=1.0, cpu_seconds=1.0, max_error=0.0, agree=True, failure=failure, grouped=grouped
    )


class Script:
    """Replaces the processes of a cell: what each start and each round does, in turn."""

    def __init__(self, cell: Cell, starts: Iterator[bool], rounds: Iterator[bool]) -> None:
        self.started = 0
        self._starts, self._rounds = starts, rounds
        cell.start = self.start  # type: ignore[method-assign]
        cell.round = self.round  # type: ignore[method-assign]

    def start(self) -> None:
        self.started += 1
        if not next(self._starts, True):
            raise Unreachable("peer 1 of hivemind float32 died")

    def round(self) -> CellRound:
        return round_of(grouped=next(self._rounds))


def cell_of() -> Cell:
    hosts = ("127.0.0.1", "127.0.0.1")
    return Cell("hivemind", "float32", 2, 5000, hosts, "lo", ((), ()))


def test_retry_starts_on_new_ports_until_a_group_forms() -> None:
    cell, said = cell_of(), list[str]()
    script = Script(cell, iter([False, True, True]), iter([False, False, True]))
    assert retry.play(cell, said.append).grouped
    assert script.started == 3
    assert len(said) == 3


def test_retry_gives_up_after_three_tries() -> None:
    cell = cell_of()
    script = Script(cell, iter(()), iter([False] * 9))
    assert not retry.play(cell, lambda _: None).grouped
    assert script.started == retry.REGROUPS
    Script(cell, iter([False] * 3), iter(()))
    with pytest.raises(Unreachable):
        retry.start(cell, lambda _: None)


@pytest.mark.real
def test_allreduce_fails_without_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native peers run. The peers of gloo have an unknown engine, so they die at once."""
    start = Cell._start

    def broken(self: Cell, index: int, join: str) -> None:
        if self.engine == "gloo":
            self.codec = "no such codec"
            self._device = "no such device"
        start(self, index, join)

    monkeypatch.setattr(Cell, "_start", broken)
    said: list[str] = []
    records = measure(
        peers=2,
        elements=5000,
        codecs=("float32",),
        engines=("native", "gloo"),
        rate_bps=None,
        rtt_s=0.0,
        repeat=1,
        certified=False,
        say=said.append,
    )
    assert [(record.engine, record.rounds, record.wrong) for record in records] == [
        ("native", 1, 0),
        ("gloo", 1, 1),
    ]
    (line,) = without_figure(records)
    assert line.startswith("No figure for gloo float32, and no ratio to it: ")
    assert sum("trying again on new ports" in line for line in said) == retry.REGROUPS


def test_allreduce_exits_with_1_without_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(cell: Cell) -> None:
        raise Unreachable(f"peer 0 of {cell.engine} died")

    monkeypatch.setattr(Cell, "start", unable)
    words = ["bench", "allreduce", "--engines", "hivemind", "--codecs", "float32", "--json"]
    answer = CliRunner().invoke(cli, words, standalone_mode=False)
    assert answer.return_value == 1
    assert "No figure for hivemind float32" in answer.output
