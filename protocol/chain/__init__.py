"""The chain as the protocol sees it: the port, and what nodes prove to each other about wallets.

`port.py` defines the `Chain` port; `contracts/client.py` implements it. `account_binding.py` binds
a wallet to a node, `registration.py` says whether a peer proved its wallet, and `reputation.py` how
reliably its work was certified. What is paid to whom is in `protocol/settlement`.
"""
