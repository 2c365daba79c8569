"""How these tests run hypothesis: the same examples every time, few enough that all of them take
seconds.

To look for what the fixed examples miss: `pytest tests/protocol --hypothesis-profile explore`.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# Deadlines are wall time: two cores share it.
_QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)

pytest.register_assert_rewrite("tests.protocol.round.cluster")
settings.register_profile(
    "rules",
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=_QUIET,
)
settings.register_profile(
    "explore", max_examples=1500, deadline=None, database=None, suppress_health_check=_QUIET
)
if settings.get_current_profile_name() == "default":
    settings.load_profile("rules")
