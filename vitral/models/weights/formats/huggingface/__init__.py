"""Hugging Face's transformers: `folder` is the format, the others a family each."""
