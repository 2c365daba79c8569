"""Moves a node that starts along the certificates whose results are on its own disk."""

from __future__ import annotations

from collections.abc import Callable

from daemon.services.training.native.state.anchor import Anchor
from daemon.services.training.native.state.result_store import ResultStore
from daemon.swarm.lineage import Lineage
from protocol.averaging.outer_step import state_leaves
from protocol.averaging.plan_sum import step_terms
from protocol.averaging.replay import is_merge
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import Tip
from protocol.ports.offload import Offload
from protocol.round.state import ReturningState
from protocol.run.manifest import Manifest, Outer
from protocol.run.schedule import outer_at

# After a power cut of the whole swarm, the members that kept the results may come back later than
# this node. If the first ones certified among themselves meanwhile, certified work would be lost.
RETURN_S = 120.0


async def replay_from_disk(
    tip: Tip,
    manifest: Manifest,
    anchor: Anchor,
    results: ResultStore,
    lineage: Lineage,
    offload: Offload,
    warn: Callable[[str, str], None],
) -> Tip:
    """Replay results from the full state on, up to the first that is not on this disk.

    Args:
        tip: The certificate of the full state, which the anchor holds.
        manifest: The run's rules.
        anchor: Moves to the certificate that is returned.
        results: Reads and checks the results.
        lineage: The certificates on disk.
        offload: Runs the arithmetic in a thread.
        warn: Reports results that do not lead to the certified state, by (code, message).

    Returns:
        The certificate that the anchor reached.
    """
    head = lineage.preferred_descendant(tip)
    for certificate in lineage.path(tip, head) if head is not None else []:
        entry = lineage.entry(certificate.hash)
        replays = _merge if is_merge(certificate) else _step
        if entry is None or tip.hash not in certificate.outcome.parents:
            break
        outer = outer_at(manifest, tip.samples)
        if not await replays(certificate, outer, anchor, results, offload, warn):
            break
        anchor.adopt(certificate.hash)
        tip = entry.tip
    return tip


def returning_state(lineage: Lineage, tip: Tip, now: float) -> ReturningState | None:
    """Return the state of the last certificate on disk, where this node starts before it."""
    head = lineage.preferred_descendant(tip)
    if head is None:
        return None
    return ReturningState(certificate=head.hash, until=now + RETURN_S)


async def _merge(
    certificate: OpenCertificate,
    outer: Outer,
    anchor: Anchor,
    results: ResultStore,
    offload: Offload,
    warn: Callable[[str, str], None],
) -> bool:
    merged = await results.merged_state(certificate)
    if merged is None:
        return False
    await anchor.receive(*merged, await offload(lambda: state_leaves(*merged)))
    return True


async def _step(
    certificate: OpenCertificate,
    outer: Outer,
    anchor: Anchor,
    results: ResultStore,
    offload: Offload,
    warn: Callable[[str, str], None],
) -> bool:
    mean = await results.mean_of(certificate)
    if mean is None:
        return False
    terms = step_terms(certificate.plan, certificate.contributors)
    stepped = await anchor.step(mean.decode, terms, outer, offload)
    if stepped.digest != certificate.outcome.state:
        warn(
            "RESULTS",
            f"The results of certificate {certificate.outcome.number} on disk do not lead to its"
            " state. Members send the state.",
        )
        return False
    results.put(certificate.hash, mean)
    return True
