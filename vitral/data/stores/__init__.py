"""Where the bytes or pixels of images are, read by number from any thread."""
