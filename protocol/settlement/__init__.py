"""What is paid to whom: a pure function of certificates, in integers.

Everyone who holds the certificates computes the same totals.

history.py      a run's certificates and its owner's recoveries
paid_work.py    how much of counted work is paid, in runs of rules 4
receipts.py     which offers a certificate counted, and in which epoch they are paid
served.py       what receipts of serving earn
sanctions.py    what follows from offences
totals.py       what each account has earned
shares.py       how a pool is divided in whole units
merkle_tree.py  the tree whose root the chain stores
dataset.py      the published record from which anyone recomputes the root
rules.py        what the manifest says of it
"""
