"""As `jwstdask.engine.preloaded`, for what comes after Stage 1: coordinates and their serialization."""

from __future__ import annotations

import contextlib
import gc
import io

with contextlib.suppress(Exception):
    import gwcs  # noqa: F401

    from jwstdask.io.asdf import write_tree

    # All extensions that are installed.
    write_tree({}, io.BytesIO())

gc.freeze()
