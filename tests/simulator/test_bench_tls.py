"""`bench tls` measures every way to send."""

from __future__ import annotations

import pytest

from simulator.bench.tls import PARCEL_BYTES, WAYS, bench_tls, table


@pytest.mark.real
@pytest.mark.alone
def test_every_way_is_measured() -> None:
    records = bench_tls(2 * PARCEL_BYTES, 1)
    assert [record.way for record in records] == list(WAYS)
    for record in records:
        assert record.size_bytes == 2 * PARCEL_BYTES
        assert record.gb_per_s_min == record.gb_per_s_median == record.gb_per_s_max > 0
        assert record.cpu_seconds_per_gb > 0
    assert len(table(records).splitlines()) == 1 + len(WAYS)
