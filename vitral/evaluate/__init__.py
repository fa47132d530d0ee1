"""Model and data in, rows and arrays out."""
