"""What a home's stages served, by the receipts that clients signed: for reports and rewards.

Nothing here is this node's own word: a receipt has the client's signature, and stages countersign
only what fits their own digests (`daemon/services/inference/receipt_desk.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from daemon.oracle.reporter import ReportedWork
from daemon.services.inference.receipt_folder import ReceiptReader
from protocol.digest import Digest, digest
from protocol.inference.receipt import ServiceReceipt

_DOMAIN = b"hypergpu/served/1\0"


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What one node served of one model, in all."""

    model: Digest
    requests: int
    tokens: int
    layer_tokens: int
    busy_ms: int
    # Digests over the sessions' digests of token ids, in and out.
    prompts: Digest
    answers: Digest


def served_models(receipts: Iterable[ServiceReceipt]) -> list[ServedModel]:
    """Add up receipts of one stage by model. Their order does not matter."""
    by_model: dict[Digest, list[ServiceReceipt]] = {}
    for receipt in sorted(receipts, key=lambda one: one.session):
        by_model.setdefault(receipt.model, []).append(receipt)
    return [
        ServedModel(
            model=model,
            requests=sum(one.requests for one in found),
            tokens=sum(one.tokens for one in found),
            layer_tokens=sum(one.layer_tokens for one in found),
            busy_ms=sum(one.busy_ms for one in found),
            prompts=digest(_DOMAIN, *(one.prompts for one in found)),
            answers=digest(_DOMAIN, *(one.answers for one in found)),
        )
        for model, found in sorted(by_model.items())
    ]


class ServedWork:
    """What the stages of one home served. Blocking."""

    def __init__(self, home: Path, report: Callable[[str], None]) -> None:
        """`report` gets a sentence about each damaged receipt, once."""
        self._receipts = ReceiptReader(home, report)

    def models(self) -> list[ServedModel]:
        """Read the receipts that changed, and add up all of them."""
        return served_models(signed.open() for signed in self._receipts.read())


def reported_work(certified: tuple[int, int], served: Sequence[ServedModel]) -> ReportedWork:
    """Return what an oracle gets.

    Args:
        certified: the certified samples, and the rounds that counted them.
        served: tokens of receipts with two signatures.
    """
    samples, rounds = certified
    return ReportedWork(
        samples=samples,
        rounds=rounds,
        tokens=sum(model.tokens for model in served),
        requests=sum(model.requests for model in served),
        busy_ms=sum(model.busy_ms for model in served),
    )
