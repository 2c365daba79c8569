"""Signs the binding of a node to its wallet (`protocol/chain/account_binding.py`).

The wallet signs once, and the node carries the binding in every offer.
"""

from __future__ import annotations

from daemon.wallet.keystore import UnlockedWallet
from protocol.chain.account_binding import binding_digest
from protocol.identity import PeerId
from protocol.messages.offer import Binding


def bind(
    wallet: UnlockedWallet, peer: PeerId, payout: bytes, chain_id: int, contract: bytes
) -> Binding:
    """Sign a binding. `payout` and `contract` have 20 bytes."""
    signature = wallet.sign_digest(
        binding_digest(peer, wallet.raw_address, payout, chain_id, contract)
    )
    return Binding(public_key=wallet.public_key, payout=payout, signature=signature[:64])
