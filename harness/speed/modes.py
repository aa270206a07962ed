"""Ways to time an implementation, and what a contender is called; imports nothing."""

WHOLE = ("default", "graph")
"""Ways to time a whole layer; every other mode is a part of one."""


def named(impl: str, mode: str) -> str:
    """A contender in one word, e.g. "torch_native", "torch_native:gemm", "torch_cupy:graph"."""
    return impl if mode == "default" else f"{impl}:{mode}"
