"""py-libp2p for control, gossip and discovery, with what strangers could multiply bounded.

- `host`: one TCP port, Noise, yamux; `inbound` accepts connections and decides who makes room.
- `connection`, `upgrader`, `read_ahead_stream`: one measured and bounded connection.
- `control_stream`, `stream_server`: streams, and the handlers of those that others open.
- `pubsub`, `gossip_router`, `gossip_limits`, `gossip`: topics.
- `dht`, `provider_table`: provider records.
- `bounded_swarm`, `library_settings`, `service_manager`: replaced parts of the library.
"""
