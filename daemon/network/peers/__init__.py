"""Which peers this node knows, where they are, and to which of them it is connected.

- `manager`: keeps enough connections and replaces lost ones.
- `entry_points`: looks up the names in DNS at which to join.
- `lan_discovery`: members on the same LAN, by multicast DNS; the one importer of zeroconf.
- `exchange`: trades signed records of members with neighbours (`peer_record`, `own_record`).
- `address_book`: all known peers; `address_entry`: what is known of one peer.
- `dial_policy`, `dial_targets`: which addresses may be called, and how often.
- `live_connections`: the connections that are up, and a feed of changes.
"""
