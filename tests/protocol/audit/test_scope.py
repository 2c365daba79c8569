"""Which runs have work that voters can audit."""

from __future__ import annotations

import pytest

from protocol.audit.scope import audits_work
from protocol.codec import entries
from protocol.rules.versions import RULES_4
from protocol.run.manifest import Manifest
from protocol.run.manifest_parts import Trust


@pytest.mark.parametrize("codec", [entry.name for entry in entries()])
def test_work_is_audited_in_every_codec_that_sends_all_elements(codec: str) -> None:
    manifest = Manifest(name="x", task="byte_gpt", rules=RULES_4, codec=codec)
    assert audits_work(manifest) == (codec != "topk")


def test_work_is_not_audited_before_rules_4_and_of_private_data() -> None:
    assert not audits_work(Manifest(name="x", task="byte_gpt", rules=RULES_4 - 1))
    private = Trust(audit="none")
    assert not audits_work(Manifest(name="x", task="byte_gpt", rules=RULES_4, trust=private))
