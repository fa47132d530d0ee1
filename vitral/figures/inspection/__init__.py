"""Figures and the page of `vitral inspect`, drawn only from its arrays."""
