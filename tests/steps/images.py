"""A calibrated image in memory and an engine of one loop, for tests of single imaging steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jwstdask.core.block import ImageBlock, tiles

NAMES = ("sci", "err", "dq", "var_poisson", "var_rnoise", "var_flat")


@dataclass
class Image:
    """A whole image or cube of integrations, float32 ([integration,] y, x), with DQ uint32; None where absent."""

    sci: np.ndarray
    err: np.ndarray | None
    dq: np.ndarray
    var_poisson: np.ndarray
    var_rnoise: np.ndarray
    var_flat: np.ndarray | None = None
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    def block(self, window: Any) -> ImageBlock:
        tile = (..., window.rows, window.columns)
        values = {name: getattr(self, name) for name in NAMES}
        return ImageBlock(window, **{name: None if a is None else a[tile].copy() for name, a in values.items()})


def random_image(shape: tuple[int, ...], seed: int, var_flat: bool = False) -> Image:
    """Rates with NaN, negative values, negative variances and flags of every kind strewn in, not consistently."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(3.0, 4.0, shape), rng.uniform(0.1, 2.0, shape)]
    arrays += [rng.uniform(0.01, 3.0, shape) for _ in range(3)]
    for array in arrays:
        array[rng.random(shape) < 0.01] = np.nan
    arrays[2][rng.random(shape) < 0.01] = -1.0
    sci, err, poisson, rnoise, flat = (array.astype(np.float32) for array in arrays)
    dq = np.where(rng.random(shape) < 0.1, rng.integers(0, 2**32, shape), 0).astype(np.uint32)
    return Image(sci, err, dq, poisson, rnoise, flat if var_flat else None)


def metadata(shape: tuple[int, int], corner: tuple[int, int] = (1, 1), **more: Any) -> dict[str, Any]:
    """Metadata of an image; further keys are given with ``__`` for dots, without meta."""
    values = {
        "meta.filename": "image_rate.fits",
        "meta.instrument.name": "NIRCAM",
        "meta.instrument.detector": "NRCA1",
        "meta.instrument.filter": "F200W",
        "meta.instrument.pupil": "CLEAR",
        "meta.exposure.type": "NRC_IMAGE",
        "meta.exposure.mid_time": 60123.4567,
        "meta.subarray.name": "SUB160",
        "meta.subarray.xstart": corner[1],
        "meta.subarray.ystart": corner[0],
        "meta.subarray.xsize": shape[-1],
        "meta.subarray.ysize": shape[-2],
        "meta.subarray.fastaxis": -1,
        "meta.subarray.slowaxis": 2,
    }
    values |= {"meta." + name.replace("__", "."): value for name, value in more.items()}
    return {name: value for name, value in values.items() if value is not None}


def walk(
    step: Any, meta: Mapping[str, Any], references: Mapping[str, Any], image: Image, tile: tuple[int, int] = (999, 999)
) -> tuple[Image, dict[str, Any]]:
    """The image after a step that works through it in tiles, and the metadata that the step sets."""
    assert step.skip_reason(meta) is None
    assert step.reference_skip_reason(meta, references) is None
    step.check(meta)
    prepared = step.prepare(meta, references)
    shape = image.sci.shape[-2:]
    result: dict[str, np.ndarray] = {}
    for window in tiles((0, shape[0]), shape, tile, 0):
        block = image.block(window)
        step.apply(block, prepared)
        for name, array in block.arrays().items():
            whole = result.setdefault(name, np.zeros((*array.shape[:-2], *shape), array.dtype))
            whole[..., window.rows, window.columns] = array
    extra = {name: array for name, array in result.items() if name not in NAMES}
    found = Image(**{name: result.get(name) for name in NAMES}, extra=extra)
    return found, step.finish(meta, prepared, {})


def oracle_model(image: Image, meta: Mapping[str, Any]) -> Any:
    """The image as jwst's ImageModel or CubeModel."""
    from stdatamodels.jwst import datamodels

    model = (datamodels.CubeModel if image.sci.ndim == 3 else datamodels.ImageModel)(data=image.sci.copy())
    for name in NAMES[1:]:
        if getattr(image, name) is not None:
            setattr(model, name, getattr(image, name).copy())
    for name, value in meta.items():
        model[name] = value
    return model


def assert_same(found: Image, model: Any) -> None:
    """Identical bits in every array (NaN at the same places), identical flags."""
    for name in NAMES:
        wanted = getattr(model, "data" if name == "sci" else name, None)
        ours = getattr(found, name)
        assert (ours is None) == (wanted is None), name
        if wanted is not None:
            assert ours.dtype == np.asarray(wanted).dtype, name
            np.testing.assert_array_equal(ours, wanted, err_msg=name)


TILES = [(999, 999), (16, 24), (7, 999), (33, 5)]
"""Tile shapes (y, x) that must all give the same bits."""
