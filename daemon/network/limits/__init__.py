"""What strangers may use of this node, and who makes room.

Keys are free, so every table that a stranger can fill has a limit here.

- `prefixes`: the addresses that count as one source.
- `pending_connections`: unfinished handshakes.
- `eviction`: established connections.
- `stream_quota`: handlers of streams.
- `stranger_quota`: gossip of unknown signers.
"""
