"""Questions with a grid of runs."""
