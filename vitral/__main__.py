"""`python -m vitral` is the command line."""

import sys

from vitral.cli.main import main

sys.exit(main())
