"""`python -m harness` is the command `quasibench`, also from a checkout that is not installed."""

import sys

from harness.cli import main

sys.exit(main())
