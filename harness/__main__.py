"""`python -m harness` is the command `quasibench`, also from a checkout that is not installed."""

import sys

from harness.cli import main

if __name__ == "__main__":  # the processes that render pages import this file again
    sys.exit(main())
