"""Speed and size of our own models and data, on the machine at hand."""
