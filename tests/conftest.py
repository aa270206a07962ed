"""Set-up shared by all tests: one compute thread each, because pytest runs two at a time."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
