"""Certificates of a run with a settlement: every peer names its wallet in each offer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from msgspec.structs import replace

from daemon.wallet.binding import bind
from daemon.wallet.keystore import UnlockedWallet, wallet_of
from protocol.certificates.certificate import OpenCertificate, open_certificate
from protocol.certificates.next_tip import extend
from protocol.certificates.tip import Tip
from protocol.chain.account_binding import with_binding
from protocol.digest import digest
from protocol.identity import PeerId
from protocol.messages.envelope import sign
from protocol.messages.offer import Binding
from protocol.planning.plan import make_plan
from protocol.run.manifest import Manifest, seal
from protocol.settlement.rules import Settlement, SettlementRules
from tests.protocol.rounds import CHUNKS, MANIFEST, Made, people, ready

# The devnet's, so that it can pay these.
CHAIN, CONTRACT = 4195600, bytes.fromhex("0000000000000000000000000000000000001000")
NO_LOCK = SettlementRules(lock_epochs=0)
PAID: Manifest = replace(
    MANIFEST,
    chain="hypergpu",
    settlement=Settlement(chain_id=CHAIN, contract="0x" + CONTRACT.hex(), rules=NO_LOCK),
)
PAID_RUN = seal(PAID).run


@lru_cache
def wallet(i: int) -> UnlockedWallet:
    return wallet_of(digest(b"wallet", bytes([i])))


@lru_cache
def binding(i: int, peer: PeerId) -> Binding:
    return bind(wallet(i), peer, wallet(i).raw_address, CHAIN, CONTRACT)


def certificate(
    tip: Tip, samples: Mapping[int, int], *, seq: int = 1
) -> tuple[OpenCertificate, Tip]:
    """Certify a round to which person i contributes `samples[i]`, with wallet i."""
    persons = people(4)
    made = Made(persons, tip, run=PAID_RUN, manifest=PAID)
    offers = []
    for i, person in enumerate(persons):
        weight = samples.get(i, 0)
        plain = ready(tip, person, seq=seq if weight else 0, samples=weight)

        offer = with_binding(plain, binding(i, person.peer))
        offers.append((sign(person, PAID_RUN, offer), offer))
    made.plan = make_plan(
        tip.hash,
        0,
        tip.number + 1,
        offers,
        PAID,
        CHUNKS,
        leader=made.leader.peer,
        round_s=tip.round_s,
    )
    made.plan_signed = made.signed(made.plan)
    made.vote = replace(made.vote, plan=made.plan_signed.digest)
    made.with_inclusion(
        plan=made.plan_signed.digest, contributors=tuple(i for i in range(4) if samples.get(i))
    )
    opened = open_certificate(made.raw(), PAID_RUN, PAID, CHUNKS)
    return opened, extend(tip, opened)
