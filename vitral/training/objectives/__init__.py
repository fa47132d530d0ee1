"""Training objectives: each owns its model and returns losses and metrics for a batch."""
