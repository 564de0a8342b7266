"""Dithered images of a star field with known distortion, as the oracle's models and as exposures of this package."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import gwcs
import numpy as np
from astropy import coordinates, units
from astropy.modeling import models
from astropy.modeling.fitting import LinearLSQFitter
from gwcs import coordinate_frames

PIXEL = 0.03  # arcsec
SHAPE = (100, 120)
CENTRE = (150.0, 30.0)
ARRAYS = {"sci": "data", "err": "err", "dq": "dq", "var_poisson": "var_poisson", "var_rnoise": "var_rnoise"}
ARRAYS["var_flat"] = "var_flat"


def distorted_wcs(pointing, roll, shape=SHAPE, distortion=2e-5, box=None, flip=False):
    """A gwcs: polynomial distortion, scale, rotation, TAN, pointing."""
    y0, x0 = (0.5 * (n - 1) for n in shape)
    terms = {"c1_0": 1.0, "c0_1": 2e-3, "c2_0": distortion, "c1_1": -0.5 * distortion, "c0_2": 0.3 * distortion}
    across = models.Polynomial2D(3, c3_0=1e-8, **terms)
    terms = {"c0_1": 1.001, "c1_0": -1e-3, "c2_0": -0.4 * distortion, "c1_1": distortion, "c0_2": 0.7 * distortion}
    up = models.Polynomial2D(3, c0_3=-1e-8, **terms)
    angle = np.deg2rad(roll)
    scale = PIXEL / 3600
    parity = -1 if not flip else 1
    matrix = np.array([[parity * np.cos(angle), np.sin(angle)], [-parity * np.sin(angle), np.cos(angle)]])
    transform = (
        models.Shift(-x0) & models.Shift(-y0)
        | models.Mapping((0, 1, 0, 1))
        | across & up
        | models.AffineTransformation2D(matrix=matrix * scale)
        | models.Pix2Sky_TAN()
        | models.RotateNative2Celestial(*pointing, 180)
    )
    # As in reference files, the inverse of the distortion is a fitted polynomial.
    u, v = np.meshgrid(np.linspace(-x0 - 5, x0 + 5, 15), np.linspace(-y0 - 5, y0 + 5, 15))
    tilted = across(u, v), up(u, v)
    fit = LinearLSQFitter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = [fit(models.Polynomial2D(4), *tilted, value) for value in (u, v)]
    transform.inverse = (
        models.RotateNative2Celestial(*pointing, 180).inverse
        | models.Sky2Pix_TAN()
        | models.AffineTransformation2D(matrix=np.linalg.inv(matrix * scale))
        | models.Mapping((0, 1, 0, 1))
        | back[0] & back[1]
        | models.Shift(x0) & models.Shift(y0)
    )
    detector = coordinate_frames.Frame2D(name="detector", axes_order=(0, 1), unit=(units.pix, units.pix))
    sky = coordinate_frames.CelestialFrame(
        name="world", reference_frame=coordinates.ICRS(), unit=(units.deg, units.deg)
    )
    wcs = gwcs.WCS([(detector, transform), (sky, None)])
    wcs.bounding_box = box if box is not None else ((-0.5, shape[1] - 0.5), (-0.5, shape[0] - 0.5))
    wcs.array_shape = shape
    return wcs


def oracle_models(count=4, seed=0, shape=SHAPE, groups=None, rolls=None, box=None, level=None, nan=True, stars=40):
    """Dithered exposures of one star field as jwst models, with cosmic rays, NaN and flags."""
    from stcal.alignment.util import compute_s_region_imaging
    from stcal.resample.utils import compute_mean_pixel_area
    from stdatamodels.jwst.datamodels import ImageModel

    rng = np.random.default_rng(seed)
    half = 0.5 * max(shape) * PIXEL / 3600
    sky_ra = CENTRE[0] + rng.uniform(-1.5, 1.5, stars) * half / np.cos(np.deg2rad(CENTRE[1]))
    sky_dec = CENTRE[1] + rng.uniform(-1.5, 1.5, stars) * half
    flux = 10 ** rng.uniform(1.5, 3.5, stars)
    result = []
    for k in range(count):
        dx, dy = rng.uniform(-8, 8, 2) * PIXEL / 3600
        pointing = (CENTRE[0] + dx / np.cos(np.deg2rad(CENTRE[1])), CENTRE[1] + dy)
        roll = 40.0 if rolls is None else rolls[k]
        wcs = distorted_wcs(pointing, roll, shape, box=box)
        y, x = np.mgrid[: shape[0], : shape[1]]
        image = np.zeros(shape)
        star_x, star_y = wcs.invert(sky_ra, sky_dec, with_bounding_box=False)
        for sx, sy, f in zip(star_x, star_y, flux):
            image += f * np.exp(-0.5 * ((x - sx) ** 2 + (y - sy) ** 2) / 1.3**2) / (2 * np.pi * 1.3**2)
        background = 2.0 + k if level is not None else 2.0
        model = ImageModel(shape)
        rnoise = rng.uniform(0.02, 0.05, shape).astype("f4")
        poisson = ((image + background) * 0.01).astype("f4")
        flat = (1e-5 * (image + background) ** 2).astype("f4")
        error = np.sqrt(rnoise + poisson + flat)
        model.data = (image + background + rng.normal(0, 1, shape) * error).astype("f4")
        hits = rng.random(shape) < 0.01
        model.data[hits] += rng.uniform(3, 300, hits.sum()).astype("f4")
        model.err = error.astype("f4")
        model.var_rnoise, model.var_poisson, model.var_flat = rnoise, poisson, flat
        dq = np.where(rng.random(shape) < 0.02, 1, 0).astype("u4")
        dq |= np.where(rng.random(shape) < 0.03, 4, 0).astype("u4")
        dq |= np.where(rng.random(shape) < 0.01, 512, 0).astype("u4")
        model.dq = dq
        if nan:
            for array in (model.data, model.err, model.var_rnoise, model.var_poisson, model.var_flat):
                array[(dq & 1) == 1] = np.nan
        model.meta.wcs = wcs
        model.meta.wcsinfo = {
            "ra_ref": pointing[0], "dec_ref": pointing[1], "roll_ref": roll, "v3yangle": 0.0, "vparity": -1,
            "v2_ref": 100.0, "v3_ref": -200.0, "s_region": compute_s_region_imaging(wcs, shape=shape, center=False),
            "a_order": 3, "cd1_1": 1.0,
        }  # fmt: skip
        group = k if groups is None else groups[k]
        model.meta.observation.program_number = "01234"
        model.meta.observation.observation_number = "001"
        model.meta.observation.visit_number = "001"
        model.meta.observation.visit_group = "02"
        model.meta.observation.sequence_id = "1"
        model.meta.observation.activity_id = "01"
        model.meta.observation.exposure_number = f"{group + 1:05d}"
        model.meta.observation.date = f"2026-01-0{k + 1}"
        model.meta.observation.time = f"0{k}:11:12.345"
        model.meta.instrument.name = "NIRCAM"
        model.meta.instrument.detector = "NRCA1" if k % 2 == 0 else "NRCA3"
        model.meta.instrument.filter = "F200W"
        model.meta.exposure.type = "NRC_IMAGE"
        model.meta.exposure.exposure_time = 100.0 + 10 * group
        model.meta.exposure.measurement_time = 90.0 + 10 * group
        model.meta.exposure.duration = 120.0 + 10 * group
        model.meta.exposure.start_time = 61000.0 + group
        model.meta.exposure.end_time = 61000.1 + group
        model.meta.exposure.mid_time = 61000.05 + group
        model.meta.photometry.conversion_megajanskys = 0.5
        area = compute_mean_pixel_area(wcs, shape=shape)
        model.meta.photometry.pixelarea_steradians = area
        model.meta.photometry.pixelarea_arcsecsq = area * np.rad2deg(3600) ** 2
        model.meta.bunit_data = model.meta.bunit_err = "MJy/sr"
        model.meta.filename = f"jw01234001001_02101_{k + 1:05d}_nrca1_cal.fits"
        if level is not None:
            model.meta.background.level = background - 0.25
            model.meta.background.subtracted = level
        result.append(model)
    return result


@dataclasses.dataclass
class FakeExposure:
    """What a step asks of an exposure, on arrays in memory; remembers what was read."""

    path: str
    meta: dict[str, Any]
    wcs: Any
    arrays: dict[str, np.ndarray]
    reads: list[tuple[str, int]] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, model) -> FakeExposure:
        arrays = {
            name: np.array(getattr(model, attribute))
            for name, attribute in ARRAYS.items()
            if getattr(model, attribute, None) is not None
        }
        meta = {
            name: value for name, value in model.to_flat_dict(include_arrays=False).items() if name.startswith("meta.")
        }
        return cls(model.meta.filename, meta, model.meta.wcs, arrays)

    @property
    def shape(self):
        return self.arrays["sci"].shape

    def __contains__(self, name):
        return name in self.arrays

    def read(self, name, rows=slice(None), columns=slice(None)):
        part = self.arrays[name][rows, columns]
        self.reads.append((name, part.size))
        return part.copy()


class Tools:
    """Tools of a step, one item after the other."""

    def __init__(self, scratch=None):
        self.scratch = scratch
        self.messages: list[str] = []

    def map(self, function, items):
        return [function(item) for item in items]

    def log(self, message):
        self.messages.append(message)
