"""Reference images under a block."""

from __future__ import annotations

import numpy as np

from jwstdask.core.block import RampBlock
from jwstdask.kernels.decode import native_floats


def floats_under(block: RampBlock, image: np.ndarray) -> np.ndarray:
    """The part of a reference image that lies under a block, converted once for all steps that use the image.

    Parameters
    ----------
    block
        Keeps what is returned as long as it lives.
    image
        ([superstripe,] y, x) of the frame, floating point of any byte order.

    Returns
    -------
    numpy.ndarray
        float32, contiguous; not to be changed.
    """
    memory = image.__array_interface__
    key = memory["data"][0], image.shape, image.strides, memory["typestr"]
    if key not in block.references:
        part = native_floats(image[..., block.window.rows, block.window.columns])
        # With the image itself, whose memory nothing else can have meanwhile.
        block.references[key] = part, image
    return block.references[key][0]
