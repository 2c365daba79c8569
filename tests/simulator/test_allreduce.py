"""`bench allreduce` runs real peers and accepts only right results.

It also bounds the memory and the event-loop time of averaging.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio
import trio.abc

from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from protocol.errors import UserError
from simulator.bench.allreduce.benchmark import measure
from simulator.bench.allreduce.cell import CellRound
from simulator.bench.allreduce.cell_record import is_right
from simulator.bench.allreduce.driver import DriverSettings
from simulator.bench.allreduce.native import NativeDriver, secret_of
from simulator.bench.allreduce.peer_hosts import parse_rate
from simulator.bench.allreduce.table import table
from simulator.bench.allreduce.vectors import exact_mean, tolerance, vector_of
from simulator.harness.netns import missing_for_namespaces

PEERS = 4
ELEMENTS = 4_000_000
# What averaging may hold besides anchor, momentum, ledger and spare state, in float32 vectors.
BUFFERS = 3.0
# The longest CPU time between two checkpoints of the event loop.
HELD_S = 0.005
# TLS pieces under way between four peers, and numpy's scratch. It does not grow with the vector.
OTHER_BYTES = 6 << 20


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.timeout(180)
def test_engines_side_by_side_and_a_certified_round_beside_averaging_alone() -> None:
    said: list[str] = []
    records = measure(
        peers=2,
        elements=50_001,
        codecs=("int8", "float32"),
        engines=("native", "gloo"),
        rate_bps=None,
        rtt_s=0.0,
        repeat=2,
        certified=True,
        say=said.append,
    )
    assert [(record.engine, record.codec) for record in records] == [
        ("native", "int8"),
        ("native", "float32"),
        ("gloo", "float32"),
    ]
    for record in records:
        assert (record.rounds, record.wrong, record.agree, record.notes) == (2, 0, True, ()), said
        assert record.max_error is not None
        assert record.max_error <= tolerance(record.codec)
        assert record.seconds_median
        assert record.bound_seconds is None
        assert (record.certified_seconds_median is not None) == (record.engine == "native")
    assert set(records[2].speedup_over) == {"native int8", "native float32"}
    assert "right" in table(records)


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.timeout(180)
@pytest.mark.skipif(
    bool(missing_for_namespaces()), reason=f"no network namespaces: {missing_for_namespaces()}"
)
def test_on_shaped_links_the_bound_and_bare_tcp_stand_beside_it() -> None:
    (record,) = measure(
        peers=2,
        elements=500_000,
        codecs=("float32",),
        engines=("native",),
        rate_bps=20e6,
        # The slower way bounds a peer, which sends as much as it receives.
        downlink_bps=40e6,
        rtt_s=0.0,
        # One retransmission after a timeout takes a fifth of a second.
        repeat=3,
        certified=False,
        say=lambda line: None,
    )
    assert record.bound_seconds == pytest.approx(0.8)
    assert record.seconds_median is not None
    assert record.seconds_median > 0.7 * record.bound_seconds, (
        "faster than the link: it was not shaped"
    )
    assert record.share_of_tcp is not None
    assert 0.3 < record.share_of_tcp < 1.5


def test_no_wrong_round_is_a_figure() -> None:
    good = CellRound(seconds=1.0, cpu_seconds=1.0, max_error=1e-7, agree=True, failure="")
    assert is_right(good, "float32")
    for wrong in ({"max_error": 1e-3}, {"max_error": float("nan")}, {"failure": "a group of 3"}):
        fields = {
            "seconds": 1.0,
            "cpu_seconds": 1.0,
            "max_error": 1e-7,
            "agree": True,
            "failure": "",
            **wrong,
        }
        assert not is_right(CellRound(**fields), "float32")


@pytest.mark.parametrize(
    ("text", "bits"),
    [("none", None), ("100mbit", 1e8), ("1gbit", 1e9), ("2.5Gbit", 2.5e9), ("64kbit", 64e3)],
)
def test_rates(text: str, bits: float | None) -> None:
    assert parse_rate(text) == bits


@pytest.mark.parametrize("text", ["", "fast", "100", "-1mbit", "0gbit", "nanmbit", "1e99gbit"])
def test_parse_rate_refuses_other_text(text: str) -> None:
    with pytest.raises(UserError, match="is not a rate"):
        parse_rate(text)


def test_unknown_engines_and_codecs_are_named() -> None:
    for engines, codecs, named in (
        (("warp",), ("float32",), "warp"),
        (("native",), ("int1",), "int1"),
    ):
        with pytest.raises(UserError, match=named):
            measure(
                peers=2,
                elements=5000,
                codecs=codecs,
                engines=engines,
                rate_bps=None,
                rtt_s=0,
                repeat=1,
                certified=False,
                say=lambda line: None,
            )


# ---------------------------------------------------------------- memory and the event loop


@asynccontextmanager
async def peers_in_one_process(
    tmp_path: Path, codec: str, max_group: int = PEERS
) -> AsyncIterator[list[NativeDriver]]:
    async with trio.open_nursery() as nursery:
        drivers: list[NativeDriver] = []
        for index in range(PEERS):
            settings = DriverSettings(
                engine="native",
                codec=codec,
                index=index,
                peers=PEERS,
                elements=ELEMENTS,
                host="127.0.0.1",
                device="lo",
                max_group=max_group,
            )
            certificate = load_or_make(tmp_path / f"bulk-{index}.pem", f"peer {index}")
            network = LibP2PNetwork(
                NetworkSettings(listen_host="127.0.0.1", min_connections=0),
                secret_of(index),
                certificate,
            )
            driver = NativeDriver(settings, network)
            drivers.append(driver)

            async def live(
                network: LibP2PNetwork = network,
                driver: NativeDriver = driver,
                task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
            ) -> None:
                async with network.running():
                    await driver.sender.run(task_status=task_status)

            await nursery.start(live)
        infos = tuple([await driver.info() for driver in drivers])
        for driver in drivers:
            await driver.meet(infos)
        yield drivers
        nursery.cancel_scope.cancel()


async def round_of(drivers: list[NativeDriver], number: int, vectors: list[np.ndarray]) -> None:
    await prepare(drivers, number, vectors)
    await average(drivers)


async def prepare(drivers: list[NativeDriver], number: int, vectors: list[np.ndarray]) -> None:
    for driver, vector in zip(drivers, vectors, strict=True):
        await driver.prepare(number, vector)


async def average(drivers: list[NativeDriver]) -> None:
    async with trio.open_nursery() as nursery:
        for driver in drivers:
            nursery.start_soon(driver.average)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start(1)
    yield
    tracemalloc.stop()


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.parametrize(
    ("codec", "max_group"), [("float32", PEERS), ("int8", PEERS), ("float32", PEERS // 2)]
)
async def test_averaging_holds_less_than_three_vectors(
    tmp_path: Path, traced: None, codec: str, max_group: int
) -> None:
    vectors = [vector_of(peer, ELEMENTS) for peer in range(PEERS)]
    async with peers_in_one_process(tmp_path, codec, max_group) as drivers:
        await round_of(drivers, 0, vectors)
        await round_of(drivers, 4, vectors)
        # This frees the buffers of the last round.
        await prepare(drivers, 8, vectors)
        # A part of what averaging holds is kept from one round to the next.
        kept = sum(driver.kept_bytes for driver in drivers)
        before = tracemalloc.get_traced_memory()[0] - kept
        tracemalloc.reset_peak()
        await average(drivers)
        held = tracemalloc.get_traced_memory()[1] - before
        assert np.abs(await drivers[1].result() - exact_mean(PEERS, ELEMENTS)).max() <= tolerance(
            codec
        )
    print(f"{held / (PEERS * 4 * ELEMENTS):.2f} vectors each")
    assert held <= PEERS * BUFFERS * 4 * ELEMENTS + OTHER_BYTES, (
        f"{held / (PEERS * 4 * ELEMENTS):.2f} vectors each"
    )


class LongestHold(trio.abc.Instrument):
    """The longest time that one task held the loop, in CPU time of this thread.

    The load of other processes does not count.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.name = ""
        self._began = time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        held = time.thread_time() - self._began
        if held > self.seconds:
            self.seconds, self.name = held, task.name


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.parametrize("codec", ["float32", "int8"])
async def test_numeric_work_never_holds_the_loop(tmp_path: Path, codec: str) -> None:
    vectors = [vector_of(peer, ELEMENTS) for peer in range(PEERS)]
    async with peers_in_one_process(tmp_path, codec) as drivers:
        await round_of(drivers, 0, vectors)
        await prepare(drivers, 4, vectors)
        longest = LongestHold()
        trio.lowlevel.add_instrument(longest)
        await average(drivers)
        trio.lowlevel.remove_instrument(longest)
    assert longest.seconds < HELD_S, (
        f"{longest.name} held the loop for {1000 * longest.seconds:.1f} ms"
    )
