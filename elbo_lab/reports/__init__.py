"""Numbers and pictures made from stored values; nothing is computed anew."""
