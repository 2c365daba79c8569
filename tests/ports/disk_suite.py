"""What every `Disk` must do. The fake and the real disk run exactly these tests.

A test module subclasses `DiskSuite` and provides the fixture `make_medium`, which makes an empty
`Medium` at each call.
"""

from __future__ import annotations

from tests.ports.disk_checkpoint_suite import DiskCheckpointSuite
from tests.ports.disk_failure_suite import DiskFailureSuite
from tests.ports.disk_record_suite import DiskRecordSuite


class DiskSuite(DiskCheckpointSuite, DiskRecordSuite, DiskFailureSuite):
    """Inherit, and provide the fixture."""
