"""Hugging Face's transformers: `folder` is the format, the other modules a family each."""
