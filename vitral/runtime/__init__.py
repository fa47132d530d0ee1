"""Device, precision and processes. From this package upwards, torch is imported."""
