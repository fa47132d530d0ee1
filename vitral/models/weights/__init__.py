"""Weights in files: one file per format."""
