"""Helpers for the tests of this package and of programs that use it.

`jwstdask.testing.strategies` has Hypothesis strategies for ramps.
"""

from __future__ import annotations

from jwstdask.testing.asserts import (
    Laziness,
    assert_chunk_invariant,
    assert_lazy,
    assert_same_bits,
    assert_same_products,
    chunkings,
    product_bytes,
)

__all__ = [
    "Laziness",
    "assert_chunk_invariant",
    "assert_lazy",
    "assert_same_bits",
    "assert_same_products",
    "chunkings",
    "product_bytes",
]
