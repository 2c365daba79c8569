"""Certificates: the signed outcomes of rounds, and how they follow from each other.

`certificate.py` builds and verifies a certificate. `tip.py` is the end of a lineage, `next_tip.py`
the tip after one more certificate. `merge.py` joins the states of two branches. `leader_order.py`
draws the leaders of the next views from a certificate's hash.
"""
