"""A development chain: an embedded EVM with the contracts in its genesis, behind JSON-RPC."""
