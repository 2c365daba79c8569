"""How many handlers run at a time."""

from __future__ import annotations

from daemon.network.limits.stream_quota import StreamQuota


def test_strangers_leave_a_quarter_of_all_handlers_to_those_that_matter() -> None:
    quota = StreamQuota(of_peer=2, in_all=8)
    releases = [quota.acquire(f"stranger {n}") for n in range(6)]
    assert quota.full("stranger 7", matters=False)
    assert not quota.full("member", matters=True)
    releases += [quota.acquire("member"), quota.acquire("member")]
    assert quota.full("member", matters=True)
    for release in (*releases, *releases):
        release()
    assert not quota.full("stranger 7", matters=False)
    assert not quota._held
