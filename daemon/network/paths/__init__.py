"""How bulk bytes reach a peer: one file per transport, and a selector that chooses one.

- `path`: the typed record of a path, and what a transport must offer.
- `selector`: the table of transports, best first, and the choice for each peer.
- `direct`: TCP with TLS 1.3, with its server and its stream in files of their own.
- `libp2p`: the same bytes over a stream of the libp2p connection.
- `admission`: whose bulk streams are accepted.

A new transport is one new file and one line in the selector's table.
"""
