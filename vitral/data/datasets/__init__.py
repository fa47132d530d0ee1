"""Data sets by name: what is built in, and readers of the files that publishers distribute."""
