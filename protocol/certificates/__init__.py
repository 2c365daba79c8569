"""Certificates: the signed outcomes of rounds, and how they follow from each other.

`certificate.py` builds and verifies a certificate, `tip.py` follows the lineage to its end, and
`merge.py` joins two branches. `leader_order.py` draws the leaders of the next views from a
certificate's hash.
"""
