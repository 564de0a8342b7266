"""Pixel -> sky -> output pixel, for every pixel of a frame, from a few hundred exact evaluations.

The map from the pixels of one exposure to those of another image is smooth (polynomial distortion, rotations, a
projection), so a Chebyshev series through a small grid of exact values reproduces it to far below a thousandth of a
pixel at a hundredth of the cost. The error is measured against exact values between the nodes and on the border of the
frame; where no series meets the bound, every pixel is evaluated exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from jwstdask.kernels import chebyshev

if TYPE_CHECKING:
    from jwstdask.core.block import Window

# Node counts that are tried in turn: a distorted NIRCam frame onto a tangent plane needs 8 to 12.
_NODE_COUNTS = (8, 12, 16, 24, 32)
# The measured error is the largest of a finite sample; the true maximum may lie between the sampled places.
_SAFETY = 2.0


def limits(wcs: Any, shape: tuple[int, int] | None = None) -> tuple[tuple[float, float], tuple[float, float]]:
    """Range of x and y [pixel] in which ``wcs`` is defined: its bounding box, else the pixels of ``shape`` (y, x).

    Raises
    ------
    ValueError
        If the WCS has no bounding box and neither it nor the caller gives a shape.
    """
    box = wcs.bounding_box
    if box is not None:
        if hasattr(box, "bounding_box"):
            box = box.bounding_box(order="F")
        (x_low, x_high), (y_low, y_high) = box
        return (float(x_low), float(x_high)), (float(y_low), float(y_high))
    shape = shape if shape is not None else wcs.array_shape
    if shape is None:
        raise ValueError("the WCS has neither a bounding box nor an array shape")
    return (-0.5, shape[-1] - 0.5), (-0.5, shape[-2] - 0.5)


def exact(wcs_in: Any, wcs_out: Any, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Output pixel coordinates of input pixel coordinates, by full evaluation and without any bounding box."""
    world = wcs_in(x, y, with_bounding_box=False)
    out_x, out_y = wcs_out.invert(*world, with_bounding_box=False)
    return np.asarray(out_x, dtype=np.float64), np.asarray(out_y, dtype=np.float64)


@dataclass(frozen=True)
class PixelMap:
    """Map from the pixels of a frame to those of another image.

    Attributes
    ----------
    x_limits, y_limits
        Range of input pixel coordinates [pixel] outside which the map is NaN.
    bounded
        Whether there are such limits (the input WCS has a bounding box).
    series
        float64 (2, degree in y, degree in x), or None where every pixel is evaluated exactly.
    error
        Bound of the error [output pixel]: twice the largest difference from exact values found; 0 where exact.
    """

    x_limits: tuple[float, float]
    y_limits: tuple[float, float]
    bounded: bool
    series: np.ndarray | None
    error: float
    wcs_in: Any = field(default=None, repr=False)
    wcs_out: Any = field(default=None, repr=False)

    @classmethod
    def fit(cls, wcs_in: Any, wcs_out: Any, max_error: float = 1e-6, shape: tuple[int, int] | None = None) -> PixelMap:
        """Find the shortest series whose error stays within ``max_error`` over the whole frame.

        Parameters
        ----------
        wcs_in
            gwcs of the frame; its bounding box limits the map.
        wcs_out
            gwcs of the other image; its bounding box is ignored.
        max_error
            Largest error allowed [output pixel]; 0 asks for exact evaluation. The exact evaluation itself rounds at
            about 1e-8 pixel (right ascensions in degrees), so that smaller bounds mean exact evaluation too.
        shape
            Shape of the frame (y, x), needed only if ``wcs_in`` has neither bounding box nor array shape.
        """
        x_limits, y_limits = limits(wcs_in, shape)
        frame = {"x_limits": x_limits, "y_limits": y_limits, "bounded": wcs_in.bounding_box is not None}
        for count in _NODE_COUNTS if max_error > 0 else ():
            place = chebyshev.nodes(count)
            # Between the nodes, and on the border.
            probe = np.concatenate(([-1.0], -np.cos(np.pi * np.arange(1, count) / count), [1.0]))
            sample_x, sample_y = np.meshgrid(_from_unit(place, x_limits), _from_unit(place, y_limits))
            probe_x, probe_y = np.meshgrid(_from_unit(probe, x_limits), _from_unit(probe, y_limits))
            found_x, found_y = exact(
                wcs_in,
                wcs_out,
                np.concatenate((sample_x.ravel(), probe_x.ravel())),
                np.concatenate((sample_y.ravel(), probe_y.ravel())),
            )
            if not (np.isfinite(found_x).all() and np.isfinite(found_y).all()):
                break
            found = np.stack((found_x, found_y))
            series = chebyshev.coefficients(found[:, : count * count].reshape(2, count, count))
            wanted = found[:, count * count :].reshape(2, count + 1, count + 1)
            probe_basis = chebyshev.basis(probe, count)
            difference = np.einsum("cjk,jy,kx->cyx", series, probe_basis, probe_basis) - wanted
            error = _SAFETY * float(np.hypot(*difference).max())
            if error <= max_error:
                return cls(**frame, series=np.ascontiguousarray(series), error=error)
        return cls(**frame, series=None, error=0.0, wcs_in=wcs_in, wcs_out=wcs_out)

    def __call__(self, window: Window) -> np.ndarray:
        """Output pixel coordinates of the pixels of a window.

        Parameters
        ----------
        window
            Part of the frame.

        Returns
        -------
        numpy.ndarray
            float64 (y, x, 2), x first; NaN outside the bounding box of the input WCS. The same bits for any window.
        """
        x = np.arange(window.x0, window.x1, dtype=np.float64)
        y = np.arange(window.y0, window.y1, dtype=np.float64)
        if self.series is None:
            grid_x, grid_y = np.meshgrid(x, y)
            out = np.stack(exact(self.wcs_in, self.wcs_out, grid_x, grid_y), axis=-1)
        else:
            out = np.empty((y.size, x.size, 2))
            count = self.series.shape[-1]
            basis_y = chebyshev.basis(_to_unit(y, self.y_limits), count)
            basis_x = chebyshev.basis(_to_unit(x, self.x_limits), count)
            chebyshev.evaluate(self.series, basis_y, basis_x, out)
        if self.bounded:
            out[(y < self.y_limits[0]) | (y > self.y_limits[1])] = np.nan
            out[:, (x < self.x_limits[0]) | (x > self.x_limits[1])] = np.nan
        return out


def pixel_map(wcs_in: Any, wcs_out: Any, window: Window, max_error: float = 1e-6) -> np.ndarray:
    """Output pixel coordinates of the pixels of a window; keep a :class:`PixelMap` instead for many windows.

    Returns
    -------
    numpy.ndarray
        float64 (y, x, 2), x first; NaN outside the bounding box of ``wcs_in``.
    """
    return PixelMap.fit(wcs_in, wcs_out, max_error, shape=(window.y1, window.x1))(window)


def _from_unit(position: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    return 0.5 * (ends[0] + ends[1]) + 0.5 * (ends[1] - ends[0]) * position


def _to_unit(position: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    return (position - 0.5 * (ends[0] + ends[1])) / (0.5 * (ends[1] - ends[0]))
