"""Images, cubes and ramps that steps on whole frames save besides the product: a mask, a background, a correction.

What is as large as the exposure is collected in a file, one integration after another, by whatever process does it.
"""

from __future__ import annotations

import math
import os

import numpy as np

from jwstdask.core.step import Meta
from jwstdask.io.product import ProductWriter
from jwstdask.io.temporary import temporary_path

_ROWS = 64


def scratch_array(path: str | None, shape: tuple[int, ...]) -> str | None:
    """A temporary .npy file of zeros, float32, beside the product ``path``; None if there is none."""
    if path is None:
        return None
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = temporary_path(path)
    with open(temporary, "wb") as file:
        np.lib.format.write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 4 * math.prod(shape))
    return temporary


def mapped(temporary: str) -> np.ndarray:
    """The array of a temporary file, for reading and writing."""
    return np.load(temporary, mmap_mode="r+")


def images(array: np.ndarray, integration: int) -> np.ndarray:
    """The images of an integration (image, y, x) of an image, cube or ramp, as a view."""
    plane = array[integration] if array.ndim > 2 else array
    return plane if plane.ndim == 3 else plane[np.newaxis]


def of_draft_rate(meta: Meta) -> Meta:
    """Metadata of what comes from the draft rate of a ramp, as in jwst those of a rate; else those of the exposure."""
    if meta.get("meta.cal_step.ramp_fit") == "COMPLETE":
        return meta
    return {
        **meta,
        "meta.cal_step.ramp_fit": "COMPLETE",
        **{f"meta.bunit_{name}": "DN/s" for name in ("data", "err")},
    }


def save(path: str | None, meta: Meta, sci: np.ndarray | str | None, done: bool = True) -> None:
    """Save an array as jwst does: cubes and ramps with errors and flags that are all zero.

    Parameters
    ----------
    path
        Of the product; None to do nothing.
    meta
        Metadata of the exposure.
    sci
        float32 ([integration, [group,]] y, x); or the temporary file that holds it, which is removed.
    done
        Whether it shall be saved.
    """
    if path is None or sci is None:
        return
    try:
        if done:
            _write(path, meta, mapped(sci) if isinstance(sci, str) else sci)
    finally:
        if isinstance(sci, str):
            os.unlink(sci)


def _write(path: str, meta: Meta, sci: np.ndarray) -> None:
    shape, frame = sci.shape, sci.shape[-2:]
    model, more = {
        2: ("ImageModel", {}),
        3: ("CubeModel", {"err": (shape, "float32"), "dq": (shape, "uint32")}),
        4: ("RampModel", {"pixeldq": (frame, "uint32"), "groupdq": (shape, "uint8")}),
    }[sci.ndim]
    with ProductWriter(path, model, meta, {"sci": (shape, "float32"), **more}) as product:
        for start in range(0, frame[0], _ROWS):
            rows = slice(start, min(start + _ROWS, frame[0]))
            product.write("sci", sci[..., rows, :], rows=rows)
            for name, (whole, kind) in more.items():
                product.write(name, np.zeros((*whole[:-2], rows.stop - rows.start, frame[1]), kind), rows=rows)
        product.finish()
