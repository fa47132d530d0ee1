"""What tests share that are not beside each other."""
