"""What survives a restart: checkpoints, the ledger and the chain of certificates, as files in the
node's home.
"""
