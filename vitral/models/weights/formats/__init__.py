"""Other people's formats: a file each, or a few where there is much to say."""
