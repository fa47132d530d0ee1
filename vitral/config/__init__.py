"""Data that needs no torch: architectures, preprocessing, runs and their names."""
