"""`python -m ml_intern`."""

import sys

from ml_intern.cli import main

sys.exit(main())
