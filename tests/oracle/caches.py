"""CRDS caches that one process uses in turn."""

from __future__ import annotations

import os
from collections.abc import Mapping


def use(environment: Mapping[str, str] | None) -> None:
    """Let crds look into another cache."""
    if not environment or all(os.environ.get(name) == value for name, value in environment.items()):
        return
    os.environ.update(environment)
    from crds.core import config, utils

    utils.clear_function_caches()
    config.CRDS_REF_SUBDIR_MODE = "None"
