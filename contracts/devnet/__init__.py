"""A chain of one's own: an embedded EVM with the precompile addresses populated, behind JSON-RPC."""
