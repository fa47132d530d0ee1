"""Pictures of what `vitral inspect` measured, drawn from its arrays alone."""
