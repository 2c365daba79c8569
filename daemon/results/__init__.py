"""What a run has learned, for commands: models of a home or a swarm, scores, samples, exports."""
