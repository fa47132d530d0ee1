"""Training: objectives, the loop, the state of a run on disk. `vitral.train` is `train.train`."""
