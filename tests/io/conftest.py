"""Products written by `stdatamodels` with as much metadata as their schemas know."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from stdatamodels.jwst import datamodels

from jwstdask.io.schema import Keyword, model_schema

NY, NX = 12, 9
INTEGRATIONS, GROUPS = 2, 3

# kind of product -> (model, {array: shape}, tables)
PRODUCTS = {
    "uncal": (
        "Level1bModel",
        {"sci": (2, 3, NY, NX), "zeroframe": (2, NY, NX), "refout": (2, 3, NY, 2)},
        ["group", "int_times"],
    ),
    "ramp": (
        "RampModel",
        {"sci": (2, 3, NY, NX), "pixeldq": (NY, NX), "groupdq": (2, 3, NY, NX), "avdrkcur": (NY, NX)},
        ["group", "int_times"],
    ),
    "rate": (
        "ImageModel",
        dict.fromkeys(("sci", "err", "dq", "var_poisson", "var_rnoise"), (NY, NX)),
        [],
    ),
    "rateints": (
        "CubeModel",
        dict.fromkeys(("sci", "err", "dq", "var_poisson", "var_rnoise"), (2, NY, NX)),
        ["int_times"],
    ),
    "cal": (
        "ImageModel",
        dict.fromkeys(("sci", "err", "dq", "area", "var_poisson", "var_rnoise", "var_flat"), (NY, NX)),
        [],
    ),
    "calints": (
        "CubeModel",
        {
            **dict.fromkeys(("sci", "err", "dq", "var_poisson", "var_rnoise", "var_flat"), (2, NY, NX)),
            "area": (NY, NX),
        },
        ["int_times", "int_times_stripe"],
    ),
    "i2d": (
        "ImageModel",
        {
            "con": (2, NY, NX),
            **dict.fromkeys(("sci", "err", "wht", "var_poisson", "var_rnoise", "var_flat"), (NY, NX)),
        },
        [],
    ),
    "crf": ("ImageModel", dict.fromkeys(("sci", "err", "dq"), (NY, NX)), []),
    "segm": ("SegmentationMapModel", {"sci": (NY, NX)}, []),
    "fitopt": (
        "RampFitOutputModel",
        {
            "slope": (2, 2, NY, NX),
            "sigslope": (2, 2, NY, NX),
            "var_poisson": (2, 2, NY, NX),
            "yint": (2, 2, NY, NX),
            "pedestal": (2, NY, NX),
            "weights": (2, 2, NY, NX),
            "crmag": (2, 1, NY, NX),
        },
        [],
    ),
    "ifu cal": ("IFUImageModel", dict.fromkeys(("sci", "err", "dq", "wavelength", "regions"), (NY, NX)), []),
    "slit cal": ("SlitModel", dict.fromkeys(("sci", "err", "dq", "wavelength", "pathloss_ps"), (NY, NX)), []),
}


def random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Random values with those at the edges of the type among them."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        array = rng.normal(size=shape).astype(dtype)
        array.flat[:4] = [np.nan, np.inf, -np.inf, np.finfo(dtype).tiny]
    else:
        info = np.iinfo(dtype)
        array = rng.integers(info.min, info.max, size=shape, dtype=dtype, endpoint=True)
        array.flat[:4] = [info.min, info.max, info.min // 2 + info.max // 2, info.min // 2 + info.max // 2 + 1]
    return array


def random_table(rng: np.random.Generator, dtype: np.dtype, rows: int = 4) -> np.ndarray:
    table = np.zeros(rows, dtype)
    for name in dtype.names or ():
        kind = dtype[name].base.kind
        if kind == "f":
            table[name] = rng.normal(size=table[name].shape)
        elif kind in "iu":
            table[name] = rng.integers(0, 100, size=table[name].shape)
        elif kind == "S":
            table[name] = np.array([f"row{number}" for number in range(rows)], dtype[name])
        elif kind == "b":
            table[name] = rng.integers(0, 2, size=table[name].shape)
    return table


def random_value(rng: np.random.Generator, keyword: Keyword):
    """A value that the schema allows."""
    node = keyword.node
    if node.enum is not None:
        return node.enum[rng.integers(len(node.enum))]
    if node.alternatives is not None:
        return node.alternatives[rng.integers(len(node.alternatives))]
    if node.pattern is not None:
        return None
    match keyword.type:
        case "boolean":
            return bool(rng.integers(2))
        case "integer":
            return int(rng.integers(-1000, 10**6))
        case "number":
            return float(rng.choice([rng.normal(), rng.normal() * 1e-15, rng.normal() * 1e19, 0.0, -2.0]))
        case "string":
            length = int(rng.integers(0, 90))
            # astropy cannot read back every long string with quotes that it writes.
            alphabet = list("abcdefghij KLMN0123456789_-/&=" + "'" * (length < 30))
            return "x" + "".join(rng.choice(alphabet, length)).rstrip() + "y"
    return None


def write_with_stdatamodels(path: Path, kind: str, seed: int, share: float = 1.0, wcs=None) -> Path:
    """A product as `stdatamodels` writes it; `share` of all keywords of the schema have a value."""
    name, arrays, tables = PRODUCTS[kind]
    schema = model_schema(name)
    rng = np.random.default_rng(seed)
    model = getattr(datamodels, name)(validate_on_assignment=False)
    for dotted, keyword in schema.keywords.items():
        value = random_value(rng, keyword)
        if value is not None and rng.random() < share:
            model[dotted] = value
    for array, shape in arrays.items():
        entry = schema.arrays[array]
        setattr(model, entry.attribute, random_array(rng, shape, entry.dtype))
    for table in tables:
        entry = schema.arrays[table]
        setattr(model, entry.attribute, random_table(rng, entry.dtype))
    model.meta.asn.exptype = "science"
    model.meta.background.polynomial_info = [{"degree": [1, 2], "refpoint": [0.5, 1.5]}]
    model.cal_logs = {"calwebb_detector1": ["2026-01-01 - first line", "second: line"]}
    model.add_history_entry("a note that is longer than a card holds " * 3)
    model.extra_fits = {"PRIMARY": {"header": [["MYKEY", 17, "a private keyword"], ["MYTEXT", "it's", ""]]}}
    if wcs is not None:
        model.meta.wcs = wcs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(str(path))
    return path


@pytest.fixture(scope="session")
def gwcs_object():
    """A small celestial WCS."""
    import gwcs
    from astropy import coordinates, units
    from astropy.modeling import models
    from gwcs import coordinate_frames as frames

    transform = (
        models.Shift(-4.5) & models.Shift(-6.5)
        | models.Scale(1e-5) & models.Scale(1.1e-5)
        | models.Pix2Sky_TAN()
        | models.RotateNative2Celestial(5.63, -72.05, 180)
    )
    detector = frames.Frame2D(name="detector", axes_order=(0, 1), unit=(units.pix, units.pix))
    sky = frames.CelestialFrame(reference_frame=coordinates.ICRS(), name="world", unit=(units.deg, units.deg))
    wcs = gwcs.WCS([(detector, transform), (sky, None)])
    wcs.bounding_box = ((-0.5, NX - 0.5), (-0.5, NY - 0.5))
    return wcs


@pytest.fixture(scope="session")
def real_products() -> Path:
    """Folder of real JWST files."""
    folder = os.environ.get("JWSTDASK_REALDATA")
    if not folder:
        pytest.skip("JWSTDASK_REALDATA is not set: no real files")
    return Path(folder) / "products"
