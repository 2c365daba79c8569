"""The tests that share one swarm; a package, so that a fixture can end with it."""
