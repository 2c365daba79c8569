"""Tests how the certificates of a path are grouped into records on disk."""

from __future__ import annotations

from msgspec.structs import replace

from daemon.services.training.native.state.state_sync import _records
from daemon.swarm.chain_sync import unpack_record
from protocol.certificates.certificate import OpenCertificate, open_certificate
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, named, people

ANY = open_certificate(Made(people(3)).raw(), RUN, MANIFEST, CHUNKS)


def certificate(number: int, *parents: str) -> OpenCertificate:
    """Return a certificate with this number and these parents."""
    outcome = replace(
        ANY.outcome, number=number, parents=tuple(named(parent) for parent in parents)
    )
    return replace(ANY, raw=f"{number} after {parents}".encode(), outcome=outcome)


def test_a_path_without_merges_has_a_record_for_each_certificate() -> None:
    path = [certificate(6, "5"), certificate(7, "6")]
    assert [number for number, _ in _records(path, 5)] == [6, 7]


def test_a_merge_on_the_other_branch_does_not_truncate_the_chain_to_our_tip() -> None:
    """The merge has the number of a certificate of our own branch.

    A record of its own truncated the chain on disk, and the node could not start again.
    """
    path = [
        certificate(3, "theirs"),
        certificate(4, "their 3", "their 1"),
        certificate(6, "their 4", "our 5"),
        certificate(7, "6"),
    ]
    records = _records(path, 5)
    assert [number for number, _ in records] == [6, 7]
    assert [raw for _, record in records for raw in unpack_record(record)] == [
        one.raw for one in path
    ]
