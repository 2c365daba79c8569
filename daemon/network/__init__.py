"""The real `Network` port: py-libp2p for control, gossip and discovery, TLS 1.3 for bulk bytes.

- `network`: `LibP2PNetwork`, which hands each call to one of the parts below; `settings`
  configures it.
- `permanent_parts`, `running_parts`: the parts that always exist, and those of one run.
- `network_run`: one run: starts the parts in order, and stops them.
- `control_plane`: streams over libp2p connections, and who answers those of others.
- `paths/`: how bulk bytes reach a peer, one file per transport, and the selector.
- `tls/`: the sessions of direct bulk streams.
- `libp2p/`: the host, its connections and streams, gossip and the DHT.
- `peers/`: which peers are known, where they are, and which are connected.
- `limits/`: what strangers may use of this node, and who makes room.
- `addresses`, `listeners`, `shared_port`, `tcp`, `tcp_info`, `port_holder`: addresses and sockets.
- `port_mapping/`: asks the home router to send connections here; `own_addresses` hands them out.
- `diagnosis`: measures how others reach this node, for a person who asks.
- `dns_addresses`: what /dnsaddr names stand for; the one importer of dnspython.
- `connect_race`: connects to the first of several addresses that answers.
- `error_boundary`, `graceful_close`, `byte_counter`: shared by both planes.

No other package imports libp2p.
"""

import sys

# libp2p can ask a public authority for certificates, which no node does, and imports httpx for it.
# The command line of httpx takes a tenth of a node's start, with pygments and rich. None in
# `sys.modules` makes the import of that module fail, and httpx works without it.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
