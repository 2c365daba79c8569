"""Certified totals count the lineage's certificates once, across merges and restarts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import trio
from trio.testing import MockClock

from daemon.chain.certified_feed import LOOK_S, READ_AT_ONCE, CertifiedFeed
from daemon.chain.certified_totals import CertifiedTotals, HeartbeatFigures
from daemon.chain.served_work import reported_work
from daemon.disk.file_disk import FileDisk
from daemon.journal import Journal, dates_of_certificates
from daemon.oracle.reporter import OracleEndpoint, OracleReporter, ReportSigner
from daemon.services.training.native.rounds.round_log import certified
from daemon.swarm.ancestry import LineageEntry
from daemon.swarm.chain_sync import pack_record
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import Tip, genesis
from protocol.journal import JournalEvent, Warned
from protocol.ports.offload import inline
from protocol.run.manifest import seal
from tests.daemon.chain.paid_homes import rounds
from tests.protocol.rounds import people
from tests.protocol.settlement.paid import PAID, PAID_RUN, certificate, wallet

SIGNED = seal(PAID)
ME = people(4)[0].peer


def parted(count: int) -> tuple[list[OpenCertificate], list[OpenCertificate]]:
    """Return two branches of `count` rounds with the same offers of person 0.

    Each round counts 100 samples of person 0.
    """
    branches = []
    for other in (1, 2):
        tip, branch = genesis(PAID_RUN), []
        for seq in range(1, count + 1):
            opened, tip = certificate(tip, {0: 100, other: 5}, seq=seq)
            branch.append(opened)
        branches.append(branch)
    return branches[0], branches[1]


async def append(disk: FileDisk, number: int, certificates: Sequence[OpenCertificate]) -> None:
    """Append a record to the certificate file: one step of a node's lineage."""
    await disk.append_certificate(PAID_RUN, number, pack_record([one.raw for one in certificates]))


async def test_figures_after_a_merge_are_equal_live_and_from_disk(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    ours, theirs = parted(10)
    after = certificate(tip_of(theirs[-1]), {0: 7}, seq=11)[0]
    live, events = CertifiedTotals(ME), list[JournalEvent]()
    disk = FileDisk(tmp_path, inline)
    feed = CertifiedFeed(disk, SIGNED, inline, events.append, (live.add,))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        await feed.caught_up.wait()
        assert live.now is None
        for one in ours:
            await append(disk, one.outcome.number, [one])
        await trio.sleep(2 * LOOK_S)
        assert live.totals == (1000, 10)
        # The record of the merge: the other branch, and what both lead to.
        await append(disk, 11, [*theirs, after])
        await trio.sleep(2 * LOOK_S)
        nursery.cancel_scope.cancel()
    assert live.totals == (1007, 11)
    assert live.now == HeartbeatFigures(samples=1007, certificate=after.hash)

    again = CertifiedTotals(ME)
    later = CertifiedFeed(FileDisk(tmp_path, inline), SIGNED, inline, events.append, (again.add,))
    await _caught_up(later)
    assert (again.totals, again.now) == (live.totals, live.now)
    assert events == []


async def test_an_oracle_report_after_a_merge_counts_work_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    ours, theirs = parted(3)
    figures, sent = CertifiedTotals(ME), list[tuple[int, int]]()

    def send(_: str, body: bytes) -> int:
        sent.append((len(body), 0))
        return 200

    reporter = OracleReporter(
        oracle=OracleEndpoint(url="http://oracle"),
        signer=ReportSigner(wallet=wallet(0).address, sign=wallet(0).sign_text),
        folder=tmp_path,
        figures=lambda: reported_work(figures.totals, ()),
        record=lambda _: None,
        now=lambda: 1.0,
        send=send,
    )
    figures.add(ours)
    assert reporter.report()
    figures.add(theirs)
    assert reporter.report()
    assert (len(sent), reporter.reported.samples, reporter.reported.rounds) == (1, 300, 3)


async def test_a_feed_reads_several_batches_and_passes_each_certificate_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    made = rounds(*({0: 1} for _ in range(READ_AT_ONCE + 3)))
    disk, heard = FileDisk(tmp_path, inline), list[int]()
    for one in made:
        await append(disk, one.outcome.number, [one])

    def take(some: Sequence[OpenCertificate]) -> None:
        heard.extend(one.outcome.number for one in some)

    await _caught_up(CertifiedFeed(disk, SIGNED, inline, lambda _: None, (take,)))
    assert heard == list(range(1, READ_AT_ONCE + 4))


async def test_an_unreadable_certificate_ends_the_feed_with_a_warning(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    disk, events, figures = FileDisk(tmp_path, inline), list[JournalEvent](), CertifiedTotals(ME)
    made = rounds({0: 5}, {0: 5})
    await append(disk, 1, [made[0]])
    await disk.append_certificate(PAID_RUN, 2, pack_record([b"of another version"]))
    with trio.fail_after(60.0):
        await CertifiedFeed(disk, SIGNED, inline, events.append, (figures.add,)).run()
    assert figures.totals == (5, 1)
    [warned] = events
    assert isinstance(warned, Warned)
    assert "are counted up to certificate 1" in warned.message


async def test_a_feed_retries_certificates_after_a_disk_error(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A regression: a disk that failed for a moment ended the node."""
    disk, events, figures = FileDisk(tmp_path, inline), list[JournalEvent](), CertifiedTotals(ME)
    await append(disk, 1, rounds({0: 5}))
    path = tmp_path / "runs" / PAID_RUN.hex() / "certificates"
    path.rename(path.with_name("elsewhere"))
    path.mkdir()
    feed = CertifiedFeed(disk, SIGNED, inline, events.append, (figures.add,))
    with trio.fail_after(60.0):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.run)
            await trio.sleep(3 * LOOK_S)
            assert not feed.caught_up.is_set()
            path.rmdir()
            path.with_name("elsewhere").rename(path)
            await feed.caught_up.wait()
            nursery.cancel_scope.cancel()
    assert figures.totals == (5, 1)
    [warned] = events
    assert isinstance(warned, Warned)
    assert "Is a directory" in warned.message


def test_reputations_come_from_certificates_that_the_journal_dates(tmp_path: Path) -> None:
    now = [1_000_000.0]
    journal = Journal(tmp_path / "journal", lambda: now[0])
    ours, theirs = parted(6)
    for one in [*ours, *theirs]:
        now[0] += 60.0
        journal.record(certified(LineageEntry(certificate=one, tip=tip_of(one))))
    assert journal.reputation(ME) is None, "an event counts nothing"
    journal.flush()
    journal.certified([*ours, *theirs])
    journal.certified(ours)
    assert journal.reputation(ME) == 1000
    assert journal._state.reputations._peers[ME].samples == 600

    later = Journal(tmp_path / "journal", lambda: now[0])
    later.certified(ours)
    assert later.reputation(ME) is None, "nobody said when"
    later.remember(dates_of_certificates(tmp_path / "journal", 0.0))
    later.certified([*ours, *theirs])
    assert later.reputation(ME) == 1000
    assert later._state.reputations._peers[ME].samples == 600


async def test_figures_after_the_branch_was_left_are_equal_live_and_from_disk(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The node goes back to certificate 3: what came after it counts no more."""
    ours, _ = parted(6)
    disk, live = FileDisk(tmp_path, inline), CertifiedTotals(ME)
    feed = CertifiedFeed(disk, SIGNED, inline, lambda _: None, (live.add,), live.begin_anew)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        for one in ours:
            await append(disk, one.outcome.number, [one])
        await trio.sleep(2 * LOOK_S)
        assert live.totals == (600, 6)
        later, tip = certificate(tip_of(ours[2]), {0: 7}, seq=9)
        await append(disk, 4, [later])
        await trio.sleep(2 * LOOK_S)
        assert live.totals == (307, 4)
        assert live.now == HeartbeatFigures(samples=307, certificate=later.hash)
        # As many certificates as before, so that the numbers say nothing.
        for seq in (10, 11):
            one, tip = certificate(tip, {0: 7}, seq=seq)
            await append(disk, one.outcome.number, [one])
        await trio.sleep(2 * LOOK_S)
        nursery.cancel_scope.cancel()
    again = CertifiedTotals(ME)
    await _caught_up(CertifiedFeed(disk, SIGNED, inline, lambda _: None, (again.add,)))
    assert live.totals == again.totals == (321, 6)
    assert live.now == again.now


def tip_of(certificate: OpenCertificate) -> Tip:
    """Return the tip after `certificate`, as far as the next round needs it."""
    parent = genesis(PAID_RUN)
    return Tip(
        hash=certificate.hash,
        number=certificate.outcome.number,
        members=tuple(certificate.plan.members[i] for i in certificate.inclusion.present),
        last_seq={},
        samples=certificate.samples,
        state=certificate.outcome.state,
        lane_base=parent.lane_base,
        layout=certificate.plan.plan.after,
    )


async def _caught_up(feed: CertifiedFeed) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        await feed.caught_up.wait()
        nursery.cancel_scope.cancel()
