"""Pictures and pages from the rows and arrays that a run left in its folder."""
