"""Numbers and pictures from what is stored; nothing is computed anew."""
