"""Studies: questions that a grid of runs answers."""
