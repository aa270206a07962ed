"""What the JAX implementations share: networks, sessions and probes around a recurrent core.

Importing this package imports no framework; its modules do, and only a card's `load` and `core`
reach for them.
"""
