"""Models, their layers, and reading and writing of weights."""
