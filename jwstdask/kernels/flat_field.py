"""Divide by a flat field.

Source: JWST pipeline documentation, "flat_field" (imaging and non-NIRSpec spectroscopic data).
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from jwstdask.core import dq as flags

_DO_NOT_USE = np.uint32(flags.DO_NOT_USE)
_NO_FLAT_FIELD = np.uint32(flags.NO_FLAT_FIELD)
_BAD_FLAT = np.uint32(flags.DO_NOT_USE | flags.NO_FLAT_FIELD)
_ONE, _ZERO, _NAN = np.float32(1), np.float32(0), np.float32(np.nan)


class FlatFielded(NamedTuple):
    """Arrays of :func:`flat_field`."""

    sci: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    var_poisson: np.ndarray
    var_rnoise: np.ndarray
    var_flat: np.ndarray


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _correct(sci, dq, var_poisson, var_rnoise, flat, flat_err, flat_dq, inverse, out):
    out_sci, out_err, out_dq, out_poisson, out_rnoise, out_flat = out
    count, ny, nx = sci.shape
    value, square = np.empty(nx, np.float32), np.empty(nx, np.float32)
    quality = np.empty(nx, np.uint32)
    for y in range(ny):
        for x in range(nx):
            f, q = flat[y, x], flat_dq[y, x]
            q = np.uint32(q | (_BAD_FLAT if (f != f or f == _ZERO) else np.uint32(0)))
            q = np.uint32(q | (_DO_NOT_USE if q & _NO_FLAT_FIELD else np.uint32(0)))
            f = _ONE if q & _DO_NOT_USE else f
            value[x], square[x], quality[x] = f, f * f, q
        for i in range(count):
            for x in range(nx):
                if inverse:
                    s = sci[i, y, x] * value[x]
                    vp, vr = var_poisson[i, y, x] * square[x], var_rnoise[i, y, x] * square[x]
                    vf = _ZERO
                    e = np.sqrt(vp + vr)
                else:
                    s = sci[i, y, x] / value[x]
                    vp, vr = var_poisson[i, y, x] / square[x], var_rnoise[i, y, x] / square[x]
                    vf = s * s / square[x] * (flat_err[y, x] * flat_err[y, x])
                    e = np.sqrt(vp + vr + vf)
                q = np.uint32(dq[i, y, x] | quality[x])
                # One invalid value makes the pixel invalid everywhere. ERR is NaN wherever a variance is.
                bad = (q & _DO_NOT_USE) != 0 or s != s or e != e or vp != vp or vr != vr or vf != vf
                out_sci[i, y, x] = _NAN if bad else s
                out_err[i, y, x] = _NAN if bad else e
                out_poisson[i, y, x] = _NAN if bad else vp
                out_rnoise[i, y, x] = _NAN if bad else vr
                out_flat[i, y, x] = _NAN if bad else vf
                out_dq[i, y, x] = np.uint32(q | (_DO_NOT_USE if bad else np.uint32(0)))


def flat_field(
    sci: np.ndarray,
    dq: np.ndarray,
    var_poisson: np.ndarray,
    var_rnoise: np.ndarray,
    flat: np.ndarray,
    flat_err: np.ndarray,
    flat_dq: np.ndarray,
    inverse: bool = False,
    out: FlatFielded | None = None,
) -> FlatFielded:
    """Divide an image, or each integration of a cube, by a flat field; all floating-point work is in float32.

    Where the flat is NaN, zero, NO_FLAT_FIELD or DO_NOT_USE the data are left and flagged DO_NOT_USE. Afterwards a
    pixel that is DO_NOT_USE or NaN in any array is DO_NOT_USE and NaN in all of them.

    Parameters
    ----------
    sci, var_poisson, var_rnoise
        float32 ([integration,] y, x).
    dq
        uint32, same shape.
    flat, flat_err
        float32 (y, x).
    flat_dq
        uint32 (y, x).
    inverse
        Multiply by the flat instead; VAR_FLAT becomes zero.
    out
        Arrays to fill, of the shape of ``sci``; they may be the inputs.

    Returns
    -------
    FlatFielded
        sci / flat; var_poisson / flat^2; var_rnoise / flat^2; var_flat = (sci / flat)^2 / flat^2 * flat_err^2;
        err = sqrt(var_poisson + var_rnoise + var_flat); dq | flat_dq.
    """
    if out is None:
        floats = [np.empty_like(sci) for _ in range(5)]
        out = FlatFielded(floats[0], floats[1], np.empty_like(dq), *floats[2:])

    def cube(array: np.ndarray) -> np.ndarray:
        return array if array.ndim == 3 else array[np.newaxis]

    _correct(
        cube(sci),
        cube(dq),
        cube(var_poisson),
        cube(var_rnoise),
        flat,
        flat_err,
        flat_dq,
        inverse,
        tuple(cube(array) for array in out),
    )
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _correct_rates(sci, err, dq, flat, flat_err, flat_dq, inverse, out_sci, out_err, out_dq):
    count, ny, nx = sci.shape
    for y in range(ny):
        for x in range(nx):
            f, q = flat[y, x], flat_dq[y, x]
            q = np.uint32(q | (_BAD_FLAT if (f != f or f == _ZERO) else np.uint32(0)))
            q = np.uint32(q | (_DO_NOT_USE if q & _NO_FLAT_FIELD else np.uint32(0)))
            f = _ONE if q & _DO_NOT_USE else f
            out_dq[y, x] = np.uint32(dq[y, x] | q)
            for i in range(count):
                if inverse:
                    s, e = sci[i, y, x] * f, err[i, y, x]
                else:
                    s = sci[i, y, x] / f
                    e = np.sqrt(err[i, y, x] * err[i, y, x] + s * s / (f * f) * (flat_err[y, x] * flat_err[y, x]))
                bad = s != s or e != e
                out_sci[i, y, x] = _NAN if bad else s
                out_err[i, y, x] = _NAN if bad else e


def flat_field_rates(
    sci: np.ndarray,
    err: np.ndarray,
    dq: np.ndarray,
    flat: np.ndarray,
    flat_err: np.ndarray,
    flat_dq: np.ndarray,
    inverse: bool = False,
    out: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide count rates without variances (of the guiders) by a flat field; all work is in float32.

    Flats that cannot be used are treated as by `flat_field`. Values that are NaN in one array become so in the other;
    flags and values are not matched, since all integrations share the flags.

    Parameters
    ----------
    sci, err
        float32 (integration, y, x).
    dq
        uint32 (y, x).
    flat, flat_err, flat_dq, inverse
        As for `flat_field`.
    out
        sci, err and dq to fill; they may be the inputs.

    Returns
    -------
    sci, err, dq
        sci / flat; sqrt(err^2 + (sci / flat)^2 / flat^2 * flat_err^2), or err where ``inverse``; dq | flat_dq.
    """
    if out is None:
        out = np.empty_like(sci), np.empty_like(err), np.empty_like(dq)
    _correct_rates(sci, err, dq, flat, flat_err, flat_dq, inverse, *out)
    return out
