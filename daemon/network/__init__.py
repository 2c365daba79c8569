"""The real `Network` port: py-libp2p for control, gossip and discovery, TLS 1.3 for bulk.

Nothing outside imports libp2p.
"""

import sys

# libp2p can ask for certificates of a public authority, which nothing here does, and imports httpx
# for it, whose own command line takes a tenth of a node's start with pygments and rich. httpx goes
# without it where it cannot be imported, which is what None says (Python's import system).
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
