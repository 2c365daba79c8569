"""The founders of a demo's run: all its daemons, whose keys are made before they start.

Every daemon then votes from the first round on, as in a run that has gone on for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from daemon.home.layout import ensure_home
from daemon.home.node_key import load_or_make_key
from protocol.rules.versions import RULES_4
from protocol.run.founders import with_founders
from protocol.run.manifest_file import parse_manifest


def with_demo_founders(text: str, homes: Sequence[Path]) -> str:
    """Return a run file's text with the nodes of these homes as founders, the first as the owner.

    Makes the homes and their keys. A text that names founders, or has rules without votes, stays as
    it is.
    """
    manifest = parse_manifest(text, "the demo's run")
    if manifest.rules < RULES_4 or manifest.founders:
        return text
    peers = []
    for home in homes:
        ensure_home(home)
        peers.append(load_or_make_key(home)[0].peer)
    founders = ", ".join(f'"{peer}"' for peer in with_founders(manifest, peers).founders)
    owner = "" if manifest.owner else f'owner = "{peers[0]}"\n'
    return f"founders = [{founders}]\n{owner}{text}"
