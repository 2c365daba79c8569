"""Contributions: what a node offers to a round, and what it keeps until a certificate counts it.

`ledger.py` is the account of uncounted work, and `ledger_disk.py` its form on disk. `offer.py`
makes an offer from the ledger, `commitment.py` binds a member to its bytes, and `sent_offers.py`
keeps offers that a certificate may still count. `round_share.py` says how many rounds of training
an offer holds.
"""
