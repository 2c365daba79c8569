"""TLS 1.3 for bulk streams: OpenSSL's handshake, then records of our own.

- `session`: one session over a socket, with half-close.
- `handshake`, `client_hello`: the handshake, through pyOpenSSL.
- `records`, `traffic_keys`, `record_sealer`, `record_opener`: RFC 8446's protection of records.
- `control_messages`: alerts, tickets and key updates.
- `record_socket`: moves records between a socket and memory.
- `certificate`: the node's own certificate.
"""
