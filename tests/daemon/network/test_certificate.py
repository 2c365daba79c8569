"""The bulk certificate: made once, private, and valid by every clock."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509

from daemon.network.tls.certificate import BulkCertificate, load_or_make
from daemon.network.tls.handshake import TlsContext
from protocol.errors import UserError


def test_the_certificate_is_made_once_and_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "home" / "bulk.pem"
    first = load_or_make(path, "node")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_make(path, "another name") == first == BulkCertificate(path=path, der=first.der)
    assert [file.name for file in path.parent.iterdir()] == ["bulk.pem"]
    assert load_or_make(tmp_path / "other.pem", "node").der != first.der


def test_the_certificate_is_valid_by_every_clock(tmp_path: Path) -> None:
    """A machine without a battery begins in 1970, and a clock may once be decades ahead."""
    certificate = x509.load_der_x509_certificate(load_or_make(tmp_path / "bulk.pem", "x" * 500).der)
    assert certificate.not_valid_before_utc < datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert certificate.not_valid_after_utc > datetime.datetime(2500, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize("years", [(1951, 1999), (2400, 2500)])
def test_a_handshake_asks_for_no_date(
    years: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a clock says, a peer's certificate counts byte for byte."""
    first, last = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in years)
    monkeypatch.setattr("daemon.network.tls.certificate.VALID_FROM", first)
    monkeypatch.setattr("daemon.network.tls.certificate.VALID_TO", last)
    made = load_or_make(tmp_path / "bulk.pem", "node")
    sides = [
        TlsContext(made.path, server_side=is_server).begin(lambda der: der == made.der)
        for is_server in (False, True)
    ]
    done = [False, False]
    # TLS 1.3 takes three flights.
    for turn in range(6):
        one, other = sides[turn % 2], sides[1 - turn % 2]
        done[turn % 2] = done[turn % 2] or one.step()
        if sent := one.unsent():
            other.feed(sent)
    assert done == [True, True]


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_file_is_reported_and_kept(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bulk.pem"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read") as caught:
        load_or_make(path, "node")
    assert caught.value.why == "it does not hold a private key and a certificate in PEM"
    assert str(path) in caught.value.fix
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_read_or_made_is_reported_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "bulk.pem").mkdir()
    (tmp_path / "file").touch()
    for path, why in (
        (tmp_path / "bulk.pem", "Is a directory"),
        (tmp_path / "file" / "bulk.pem", "File exists"),
    ):
        with pytest.raises(UserError, match="Cannot read or make") as caught:
            load_or_make(path, "node")
        assert why in caught.value.why
        assert str(path.parent) in caught.value.fix
