"""Multiply by a flux conversion.

Source: JWST pipeline documentation, "photom".
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from jwstdask.core import dq as flags

_DO_NOT_USE = np.uint32(flags.DO_NOT_USE)
_NAN = np.float32(np.nan)

DAYS_PER_YEAR = 365.0


def time_correction(
    mid_time: float,
    linear: np.ndarray | None = None,
    exponential: np.ndarray | None = None,
    powerlaw: np.ndarray | None = None,
) -> np.ndarray | np.float64:
    """Throughput at ``mid_time`` over the throughput at the reference day, for each row of the tables.

    The formulas are evaluated in float32, as they are in jwst: with days of order 6e4, times are rounded to 0.004 day.

    Parameters
    ----------
    mid_time
        Middle of the exposure [MJD].
    linear
        Structured array (row,) with ``t0`` [MJD] and ``lossperyear``.
    exponential
        Structured array (row,) with ``t0`` [MJD], ``amplitude``, ``tau`` [day] and ``const``.
    powerlaw
        Structured array (row,) with ``t0`` [MJD], ``year1value``, ``tsoft`` [day] and ``alpha``.

    Returns
    -------
    numpy.ndarray or float
        Product of 1 - loss t / 365, amplitude exp(-t / tau) + const, and year1 (t + tsoft)^alpha / (365 + tsoft)^alpha
        with t = mid_time - t0, of those that are given: float64 (row,), or 1 without any.
    """
    correction: np.ndarray | np.float64 = np.float64(1.0)
    if linear is not None:
        t0, loss = _columns(linear, "t0", "lossperyear")
        correction = correction * (1.0 - loss * (mid_time - t0) / DAYS_PER_YEAR)
    if exponential is not None:
        t0, amplitude, tau, constant = _columns(exponential, "t0", "amplitude", "tau", "const")
        correction = correction * (amplitude * np.exp(-(mid_time - t0) / tau) + constant)
    if powerlaw is not None:
        t0, year1, soft, alpha = _columns(powerlaw, "t0", "year1value", "tsoft", "alpha")
        correction = correction * (((mid_time - t0 + soft) ** alpha) / (((DAYS_PER_YEAR + soft) ** alpha) / year1))
    return correction


def _columns(table: np.ndarray, *names: str) -> list[np.ndarray]:
    return [np.asarray(table[name], dtype=np.float32) for name in names]


class Calibrated(NamedTuple):
    """Arrays of :func:`photom`."""

    sci: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    var_poisson: np.ndarray
    var_rnoise: np.ndarray
    var_flat: np.ndarray | None


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _convert(sci, err, dq, var_poisson, var_rnoise, var_flat, has_flat, factor, square, inverse, out):
    out_sci, out_err, out_dq, out_poisson, out_rnoise, out_flat = out
    count, ny, nx = sci.shape
    for i in range(count):
        for y in range(ny):
            for x in range(nx):
                if inverse:
                    s, e = np.float32(sci[i, y, x] / factor), np.float32(err[i, y, x] / factor)
                    vp = np.float32(var_poisson[i, y, x] / square)
                    vr = np.float32(var_rnoise[i, y, x] / square)
                    vf = np.float32(var_flat[i, y, x] / square) if has_flat else vr
                else:
                    s, e = np.float32(sci[i, y, x] * factor), np.float32(err[i, y, x] * factor)
                    vp = np.float32(var_poisson[i, y, x] * square)
                    vr = np.float32(var_rnoise[i, y, x] * square)
                    vf = np.float32(var_flat[i, y, x] * square) if has_flat else vr
                q = dq[i, y, x]
                bad = (q & _DO_NOT_USE) != 0 or s != s or e != e or vp != vp or vr != vr or vf != vf
                out_sci[i, y, x] = _NAN if bad else s
                out_err[i, y, x] = _NAN if bad else e
                out_poisson[i, y, x] = _NAN if bad else vp
                out_rnoise[i, y, x] = _NAN if bad else vr
                if has_flat:
                    out_flat[i, y, x] = _NAN if bad else vf
                out_dq[i, y, x] = np.uint32(q | (_DO_NOT_USE if bad else np.uint32(0)))


def photom(
    sci: np.ndarray,
    err: np.ndarray,
    dq: np.ndarray,
    var_poisson: np.ndarray,
    var_rnoise: np.ndarray,
    var_flat: np.ndarray | None,
    conversion: np.float32 | np.float64,
    inverse: bool = False,
    out: Calibrated | None = None,
) -> Calibrated:
    """Multiply an image or cube by a flux conversion, variances by its square.

    The products are made in the precision of ``conversion`` and stored as float32. Afterwards a pixel that is
    DO_NOT_USE or NaN in any array is DO_NOT_USE and NaN in all of them.

    Parameters
    ----------
    sci, err, var_poisson, var_rnoise
        float32 ([integration,] y, x).
    dq
        uint32, same shape.
    var_flat
        float32, same shape, or None where the data are not flat-fielded.
    conversion
        Flux of one DN/s: a numpy scalar, float32 or float64.
    inverse
        Divide instead.
    out
        Arrays to fill; they may be the inputs.
    """
    has_flat = var_flat is not None
    if out is None:
        sci_out, err_out, poisson, rnoise = (np.empty_like(sci) for _ in range(4))
        out = Calibrated(sci_out, err_out, np.empty_like(dq), poisson, rnoise, np.empty_like(sci) if has_flat else None)

    def cube(array: np.ndarray | None, stand_in: np.ndarray) -> np.ndarray:
        array = stand_in if array is None else array
        return array if array.ndim == 3 else array[np.newaxis]

    inputs = (cube(array, sci) for array in (sci, err, dq, var_poisson, var_rnoise, var_flat))
    # Without VAR_FLAT its places hold arrays that are neither read nor written.
    outputs = tuple(cube(array, out.sci) for array in out)
    _convert(*inputs, has_flat, conversion, conversion * conversion, inverse, outputs)
    return out
