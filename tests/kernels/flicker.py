"""Images with flicker noise."""

from __future__ import annotations

import numpy as np


def image(seed, shape, stripes=3.0, axis=0, level=20.0):
    """Background with a slope, stripes along an axis, sources, outliers and NaN; and a mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    values = rng.normal(level, 5, shape) + 0.01 * y
    values += rng.normal(0, stripes, (1, shape[1]) if axis == 0 else (shape[0], 1))
    for _ in range(max(values.size // 3000, 3)):
        distance = (y - rng.uniform(0, shape[0])) ** 2 + (x - rng.uniform(0, shape[1])) ** 2
        values += rng.exponential(300) * np.exp(-distance / 8)
    values[rng.random(shape) < 0.001] = -300
    values[rng.random(shape) < 0.01] = np.nan
    return values.astype(np.float32), rng.random(shape) > 0.2
