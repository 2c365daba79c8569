"""Which runs have work that voters can audit."""

from __future__ import annotations

from protocol.codec import entry_named
from protocol.rules.versions import RULES_4
from protocol.run.manifest import Manifest


def audits_work(manifest: Manifest) -> bool:
    """Return whether voters audit the work of this run.

    They do in runs of rules 4, except where the data is private, and where a contribution has only
    its largest elements (`topk`). Those are mostly what earlier rounds left over, so honest work
    knows nothing of its own samples: it scores 0.49, as noise does (`hypergpud bench audits`).
    """
    return (
        manifest.rules >= RULES_4
        and manifest.trust.audit == "loss"
        and entry_named(manifest.codec).is_dense
    )
