"""One run, from a claimed directory to its report."""
