"""Set-up shared by all tests: one compute thread each, because pytest runs two at a time.

XLA compiles without its optimiser, which halves the time of the JAX tests. `nox -s conformance`,
`quasibench check` and the gate of every timed cell use what XLA makes when it optimises.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
