"""What is minimised: each objective owns its model and gives losses and metrics for a batch."""
