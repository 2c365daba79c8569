"""The invitation for the page of the run's owner, from the owner's home."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from daemon.home.invitations import (
    Entry,
    join_command,
    terms_of,
    usual_invitation,
)
from daemon.home.layout import KEY_FILE
from daemon.home.node_key import load_or_make_key
from daemon.home.owned_run import last_certificate
from daemon.observer.bridge import OwnerView
from protocol.errors import UserError
from protocol.ports.disk import DiskFull
from protocol.rules.versions import RULES_4
from protocol.run.manifest import SignedManifest

KEY_BYTES = 16


def owner_view(home: Path, signed: SignedManifest, addresses: Sequence[str]) -> OwnerView | None:
    """Return what the page shows to the owner; None where this home is not the owner's.

    `addresses` are those of the nodes that the observer joined.
    """
    manifest = signed.open()
    if manifest.rules < RULES_4 or not (home / KEY_FILE).exists():
        return None
    try:
        signer, _ = load_or_make_key(home)
        if signer.peer != manifest.owner:
            return None
        entry = Entry(addresses=tuple(addresses), certificate=last_certificate(home, signed.run))
        made = usual_invitation(home, signed, signer, entry, time.time())
    except (UserError, DiskFull):
        # The page works without it, and `hypergpud invite` says what is wrong.
        return None
    return OwnerView(
        key=os.urandom(KEY_BYTES).hex(), command=join_command(made.token), terms=terms_of(made)
    )
