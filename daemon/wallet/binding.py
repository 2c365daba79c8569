"""Making a binding: the wallet signs for this node once, and the node carries that in every offer
(`protocol/chain/account_binding.py`).
"""

from __future__ import annotations

from daemon.wallet.keystore import UnlockedWallet
from protocol.chain.account_binding import binding_digest
from protocol.identity import PeerId
from protocol.messages.offer import Binding


def bind(
    wallet: UnlockedWallet, peer: PeerId, payout: bytes, chain_id: int, contract: bytes
) -> Binding:
    """`payout` and `contract` are 20 bytes."""
    signature = wallet.sign_digest(
        binding_digest(peer, wallet.raw_address, payout, chain_id, contract)
    )
    return Binding(public_key=wallet.public_key, payout=payout, signature=signature[:64])
