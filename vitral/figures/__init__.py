"""Plots and HTML pages from the rows and arrays in a run's folder."""
