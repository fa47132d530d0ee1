"""What can be said without torch: architectures, preprocessing, runs and their names."""
