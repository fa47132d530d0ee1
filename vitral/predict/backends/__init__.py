"""What computes a model's outputs: one file for each way of running a network."""
