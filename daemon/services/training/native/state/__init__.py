"""The state of the model: anchor, ledger and certificates, in memory, on disk and from peers."""
