"""Signs the binding of this node and its wallet, or finds the one that was signed before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from daemon.disk.atomic import write_atomically
from protocol.chain.account_binding import check_binding
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.messages.base import UNREADABLE
from protocol.messages.offer import Binding
from protocol.settlement.rules import Settlement

if TYPE_CHECKING:
    from daemon.wallet.keystore import UnlockedWallet

BINDINGS_FOLDER = "bindings"


def own_binding(
    home: Path,
    wallet: UnlockedWallet | None,
    peer: PeerId,
    settlement: Settlement,
    payout: bytes,
) -> Binding | None:
    """Sign a binding, or load a valid earlier one if the wallet is locked. Raises `DiskFull`."""
    path = home / BINDINGS_FOLDER / f"{settlement.chain_id}-{settlement.contract_bytes.hex()}"
    if wallet is not None:
        # Late, since eth-account takes half a second to import, and only paid runs need it.
        from daemon.wallet.binding import bind  # noqa: PLC0415

        made = bind(wallet, peer, payout, settlement.chain_id, settlement.contract_bytes)
        write_atomically(path, [memoryview(msgspec.msgpack.encode(made))])
        return made
    try:
        kept = msgspec.msgpack.decode(path.read_bytes(), type=Binding)
        check_binding(kept, peer, settlement.chain_id, settlement.contract_bytes)
    except (OSError, PeerFault, *UNREADABLE):
        return None
    return kept if kept.payout == payout else None
