"""Weight formats of other libraries: a module or package each."""
