"""How bulk bytes reach a peer: one file per transport, and a selector that chooses one.

- `path`: the typed record of a path, and what a transport must offer.
- `selector`: the table of transports, best first, and the choice for each peer.
- `direct`: TCP with TLS 1.3, where one of the two calls the other.
- `around`: the same over a connection that a third node brought about: punched or relayed.
- `tls_client`, `direct_server`, `direct_stream`: both sides of TLS over such a connection.
- `libp2p`: the same bytes over a stream of the libp2p connection.
- `paced_stream`: any of these streams, within the bandwidth that the node's owner allows.
- `admission`: whose bulk streams are accepted.

A new transport is one new file and one line in the selector's table.
"""
