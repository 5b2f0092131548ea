"""Many runs: a grid, its workers, and its results."""
