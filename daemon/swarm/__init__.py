"""Being a member of a run: signed messages, beacons, the lineage of certificates, the transfer of
anchors.

Port code only: no libp2p, no torch.
"""
