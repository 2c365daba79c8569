"""Stories that a simulated swarm goes through: named ones and random ones."""
