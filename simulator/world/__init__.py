"""A swarm of simulated nodes in virtual time, and the invariants that hold in it."""
