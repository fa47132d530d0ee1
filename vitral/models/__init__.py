"""Networks and their files: one file per box of the paper's Figure 1."""
