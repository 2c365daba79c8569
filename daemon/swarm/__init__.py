"""A node as a member of a run: what a node hears from other members, and what it gives them.

- `follower`, `news_limits`: beacons and certificates by gossip, and how many a node looks at.
- `certificate_fetcher`, `ask_order`: certificates that gossip missed, and whom to ask for them.
- `lineage`, `ancestry`, `orphans`, `certificate_shares`: the verified certificates.
- `forks`, `branch_order`: branches of the lineage, and which of them comes first.
- `recoveries`, `required_certificate`: what the run's owner and an invitation demand of a history.
- `members`, `member_record`, `live_nodes`, `peer_report`: the other peers.
- `beacon_schedule`: how often the peers are heard.
- `link_estimates`, `link_estimate`: what is measured of the links to them.
- `messenger`, `frames`: messages to single peers.
- `chain_sync`, `manifest_exchange`: certificates and the manifest from a peer.
- `state_transfer`, `state_download`, `multi_peer_download`: the state of a certificate.
- `task_agreement`: whether members train the same task.
- `reply_limiter`, `training_speed`: limits on answers, and the speed that beacons report.

The package knows the ports alone: no libp2p, no torch.
"""
