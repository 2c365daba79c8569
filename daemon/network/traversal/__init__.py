"""Connections to peers that cannot be called: what a router in between makes necessary.

- `preamble`: what a connection that is no TLS and no libp2p says first, on either port.
- `expected`: connections that this node asked others for, by token.
- `messages`: the requests over control streams, and `signalling`, which answers them.
- `observation`: which outer address and port others see of a socket of this node.
- `reachability`: members call this node back; from that follows what others can do.
- `relay`: passes the bytes of two members on, within `relay_limits`.
- `punch`: both ends call each other at one moment.
- `connector`: gets a TCP connection to a peer in one of these ways.

Each way ends in a plain TCP connection. TLS or Noise runs over it from end to end, so that no third
node sees or changes anything.
"""
