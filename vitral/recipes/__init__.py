"""Named settings: what to train with when nothing else is said, and why."""
