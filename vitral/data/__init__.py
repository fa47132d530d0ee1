"""Examples and batches: where images are, what they hold, in which order and form they come."""
