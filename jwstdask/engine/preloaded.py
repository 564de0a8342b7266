"""Imported by the server that worker processes are forked from: what every exposure needs, loaded once for all."""

from __future__ import annotations

import contextlib
import gc

with contextlib.suppress(Exception):
    import distributed.nanny
    import distributed.worker  # noqa: F401
    import numpy as np

    import jwstdask.pipelines.run  # noqa: F401
    from jwstdask.core.imports import numba_without_blas, numba_without_parsed_kernels
    from jwstdask.io.asdf import tree_bytes
    from jwstdask.io.schema import model_schema
    from jwstdask.kernels.decode import decode_uint16

    numba_without_blas()
    numba_without_parsed_kernels()
    # What these libraries read when they are first used.
    decode_uint16(np.zeros((1, 1, 1, 8), ">i2"))
    tree_bytes({})
    for model in ("ImageModel", "CubeModel", "RampModel", "Level1bModel"):
        model_schema(model)

# What is loaded stays: the collector of a forked process neither looks at it nor touches, and so copies, its memory.
gc.freeze()
