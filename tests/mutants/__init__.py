"""A correct QRNN in NumPy and deliberately wrong ones, to prove what the conformance suite sees."""
