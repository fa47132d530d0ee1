"""One file a publisher's format; nothing of it unpacks by hand, runs code or needs pickle."""
