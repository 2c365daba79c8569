"""What audits cost a voter: at most 5% of its time and of its rounds' bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.audit.budget import AUDIT_SHARE, FIRST_AUDIT_S, SPARE_BYTES_PER_S, AuditBudget

ROUND_S = 20.0
OFFER_BYTES = 1_000_000

costs = st.tuples(st.floats(0.01, 120.0), st.integers(0, OFFER_BYTES))


@given(st.lists(costs, min_size=1, max_size=60))
def test_audits_cost_at_most_their_share_and_one_audit(audits: list[tuple[float, int]]) -> None:
    budget, now_s = AuditBudget(began_s=0.0), 0.0
    most_s = max(seconds for seconds, _ in audits)
    most_bytes = max(size for _, size in audits)
    for seconds, size in audits:
        now_s += ROUND_S
        budget = budget.offered(OFFER_BYTES)
        if budget.affords(now_s, seconds):
            budget = budget.audited(seconds=seconds, size_bytes=size)
        assert budget.spent_s <= AUDIT_SHARE * now_s + most_s
        # A round moves a contribution twice: out, and the mean in.
        allowed = 2 * AUDIT_SHARE * budget.offered_bytes + SPARE_BYTES_PER_S * now_s
        assert budget.moved_bytes <= allowed + most_bytes


def test_first_audit_comes_at_once_unless_it_is_dear() -> None:
    budget = AuditBudget(began_s=0.0)
    assert budget.affords(1.0, FIRST_AUDIT_S)
    assert not budget.affords(1.0, FIRST_AUDIT_S + 1.0)
    assert budget.affords((FIRST_AUDIT_S + 1.0) / AUDIT_SHARE, FIRST_AUDIT_S + 1.0)
