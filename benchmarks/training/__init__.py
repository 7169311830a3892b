"""Training: images a second of the loop beside the shortest loop that does the same."""
