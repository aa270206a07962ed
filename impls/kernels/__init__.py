"""Native kernels of the QRNN layer: one pooling source, compiled on first use."""
