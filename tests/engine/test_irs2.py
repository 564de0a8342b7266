"""IRS2 readouts through Stage 1: a step that drops rows on the way, in files, in memory and lazily."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from jwstdask import open_exposure
from jwstdask.core import dq
from jwstdask.core.errors import JwstdaskError
from jwstdask.engine.executor import Serial
from jwstdask.kernels.irs2 import Readout
from jwstdask.simulate.crds import ReferenceMap, Rule, write_cache
from tests.steps.test_refpix_irs2 import LISTED, READ_NOISE, exposure, metadata_of, weights
from tests.using import crds_of

DETECTOR = "NRS2"
SAVED = ("dq_init", "saturation", "superbias", "refpix", "jump")
STEPS = {name: {"save_results": True} for name in SAVED}
"""Results of which the first three have all rows of the file, the others those of the detector."""

_META = {
    "meta.telescope": "JWST",
    "meta.exposure.type": "NRS_FIXEDSLIT",
    "meta.exposure.nframes": 1,
    "meta.exposure.groupgap": 0,
    "meta.exposure.frame_divisor": 1,
    "meta.exposure.frame_time": 14.58888,
    "meta.exposure.group_time": 14.58888,
    "meta.exposure.integration_start": 1,
    "meta.observation.date": "2024-01-01",
    "meta.observation.time": "00:00:00.000",
    "meta.exposure.start_time": 60310.0,
}


def _save(model, path, values):
    for name, value in values.items():
        model[name] = value
    model.save(str(path))
    model.close()


def _references(folder):
    """Every reference of Stage 1, full frame."""
    from stdatamodels.jwst import datamodels

    readout, rng = Readout(flipped=DETECTOR == "NRS2"), np.random.default_rng(8)
    border = np.ones((2048, 2048), bool)
    border[4:-4, 4:-4] = False
    rows = np.ones((readout.rows, 2048), bool)
    rows[readout.science] = border
    mask = np.where(rows, dq.REFERENCE_PIXEL, 0).astype(np.uint32)
    mask[rng.random(mask.shape) < 0.002] |= dq.DO_NOT_USE
    mask[readout.held[700:702]] |= dq.BAD_REF_PIXEL
    # reference pixels of the border, whose rows of pixels are replaced
    mask[readout.science[[0, 900, 1500]], [5, 1, 2046]] |= dq.BAD_REF_PIXEL
    none, ones = np.zeros((2048, 2048), np.uint32), np.ones((2048, 2048), np.float32)
    edge = np.minimum.outer(*[np.minimum(np.arange(2048), np.arange(2048)[::-1])] * 2)
    bias = rng.normal(9000, 200, (readout.rows, 2048)).astype(np.float32)
    table = weights(5)
    listed = np.rec.fromarrays(list(LISTED.values()), dtype=[("output", "u2"), ("odd_even", "u2"), ("mask", "u4")])
    models = {
        "mask": datamodels.MaskModel(dq=mask),
        "saturation": datamodels.SaturationModel(data=np.where(border, np.nan, 60000 * ones), dq=none),
        "superbias": datamodels.SuperBiasModel(data=bias, dq=np.zeros(bias.shape, np.uint32)),
        "refpix": datamodels.IRS2Model(irs2_table=np.asarray(table), dq_table=np.asarray(listed)),
        "linearity": datamodels.LinearityModel(coeffs=np.stack([0 * ones, ones, 1e-7 * ones]), dq=none),
        "dark": datamodels.DarkModel(data=rng.random((3, 2048, 2048)).astype(np.float32), dq=none),
        "pictureframe": datamodels.PictureFrameModel(data=np.exp(-edge / 60) + ones, dq=none),
        "gain": datamodels.GainModel(data=rng.normal(1, 0.02, ones.shape).astype(np.float32)),
        "readnoise": datamodels.ReadnoiseModel(data=rng.normal(8, 0.5, ones.shape).astype(np.float32)),
    }
    meta = metadata_of(DETECTOR)
    frame = {name: meta[name] for name in meta if name.startswith(("meta.subarray", "meta.instrument"))}
    folder.mkdir(parents=True)
    maps = []
    for kind, model in models.items():
        values = {
            name: value
            for name, value in frame.items()
            if kind not in ("refpix", "pictureframe") or "instrument" in name
        }
        values |= {"meta.reftype": kind.upper(), "meta.author": "test", "meta.pedigree": "DUMMY"}
        values |= {"meta.description": "test", "meta.useafter": "2020-01-01T00:00:00"}
        if kind == "dark":
            values |= {"meta.exposure.nframes": 1, "meta.exposure.groupgap": 0}
        name = f"jwst_nirspec_{kind}_0001.fits"
        _save(model, folder / name, values)
        maps.append(ReferenceMap(kind, ("META.INSTRUMENT.DETECTOR",), (Rule((DETECTOR,), name),)))
    return maps, bias


@pytest.fixture(scope="module")
def uncal(module_folder):
    """A raw exposure of two integrations of two groups, with its references in use."""
    from stdatamodels.jwst.datamodels import Level1bModel

    folder = module_folder("irs2")
    maps, bias = _references(folder / "cache" / "references" / "jwst" / "nirspec")
    write_cache(folder / "cache", "jwst_7778.pmap", {"nirspec": maps}, 7778)
    ramp = exposure(DETECTOR, 2, 2, 3)
    meta = metadata_of(DETECTOR) | _META | {"meta.exposure.nints": 2, "meta.exposure.ngroups": 2}
    path = folder / "jw00001001001_01101_00001_nrs2_uncal.fits"
    _save(Level1bModel(data=np.clip(np.round(ramp.sci + bias), 0, 65535).astype(np.uint16)), path, meta)
    environment = {"CRDS_PATH": str(folder / "cache"), "CRDS_CONTEXT": "jwst_7778.pmap"}
    with crds_of(SimpleNamespace(environment=environment)):
        yield str(path)


@pytest.fixture(scope="module")
def products(uncal, module_folder):
    """Products by suffix, as files."""
    from jwstdask.pipeline import Detector1Pipeline

    folder = module_folder("products")
    Detector1Pipeline.call(uncal, save_results=True, output_dir=str(folder), steps=STEPS, executor=Serial())
    found = {path.stem.partition("_nrs2_")[2]: path for path in folder.iterdir()}
    # Nothing temporary is left.
    assert set(found) == {"rate", "rateints", *SAVED}
    return found


def test_frames_before_and_after_the_rows_are_dropped(products):
    for name in SAVED:
        rows = 3200 if name in SAVED[:3] else 2048
        with fits.open(products[name]) as file:
            assert file["SCI"].shape == file["GROUPDQ"].shape == (2, 2, rows, 2048)
            assert file["PIXELDQ"].shape == (rows, 2048)
            assert file[0].header["SUBSIZE2"] == 2048
    assert fits.getdata(products["rate"]).shape == (2048, 2048)


def test_same_bits_in_memory_and_lazily(uncal, products):
    from jwstdask.pipeline import Detector1Pipeline

    def same(found, kind, rows=slice(None)):
        with open_exposure(products[kind]) as filed:
            for name in ("sci", "err", "dq", "var_poisson", "var_rnoise"):
                np.testing.assert_array_equal(found[name].values, filed[name].values[..., rows, :])

    same(Detector1Pipeline.call(uncal, executor=Serial()), "rate")
    lazy = Detector1Pipeline().apply(uncal)
    rate = lazy["rate"] if "rate" in getattr(lazy, "children", {}) else lazy
    same(rate.isel(y=slice(1900, 2000)), "rate", slice(1900, 2000))


def test_reference_samples_are_preserved_on_request(products, tmp_path):
    from jwstdask.step import RefPixStep

    # Given what an earlier step saved, as when steps run one by one.
    found = RefPixStep.call(str(products["superbias"]), preserve_irs2_refpix=True)
    rows = Readout(flipped=True).science
    assert found["sci"].shape == (2, 2, 3200, 2048)
    with fits.open(products["refpix"]) as file:
        np.testing.assert_array_equal(found["sci"].values[:, :, rows], file["SCI"].data)
        np.testing.assert_array_equal(found["pixeldq"].values[rows], file["PIXELDQ"].data)


def test_later_steps_are_refused_while_reference_samples_are_there(uncal, products):
    from jwstdask.pipeline import Detector1Pipeline
    from jwstdask.step import LinearityStep

    with pytest.raises(JwstdaskError, match="linearity cannot work on rows with reference samples between them"):
        Detector1Pipeline.call(uncal, steps={"refpix": {"preserve_irs2_refpix": True}}, executor=Serial())
    with pytest.raises(JwstdaskError, match="Run refpix before it"):
        Detector1Pipeline.call(uncal, steps={"refpix": {"skip": True}}, executor=Serial())
    with pytest.raises(JwstdaskError, match="linearity cannot work"):
        LinearityStep.call(str(products["superbias"]))


def test_picture_frame_after_the_rows_are_dropped(uncal, products, tmp_path):
    """A step on whole frames, in the pipeline and one step after the other."""
    from jwstdask.pipeline import Detector1Pipeline
    from jwstdask.step import PictureFrameStep, RampFitStep

    parameters = {"skip": False, "mask_science_regions": False}
    Detector1Pipeline.call(
        uncal, save_results=True, output_dir=str(tmp_path), steps={"picture_frame": parameters}, executor=Serial()
    )
    frame = PictureFrameStep.call(str(products["jump"]), mask_science_regions=False)
    with open_exposure(products["jump"]) as before:
        assert np.abs(frame["sci"].values - before["sci"].values).max() > 0.3
    rate = RampFitStep.call(frame)
    rate = (
        rate[0] if isinstance(rate, tuple | list) else rate["rate"] if "rate" in getattr(rate, "children", {}) else rate
    )
    (path,) = tmp_path.glob("*_rate.fits")
    with open_exposure(path) as found:
        assert found.attrs["meta.cal_step.picture_frame"] == "COMPLETE"
        np.testing.assert_array_equal(found["sci"].values, rate["sci"].values)
        assert np.any(found["sci"].values != fits.getdata(products["rate"]))


@pytest.mark.slow
def test_products_are_those_of_the_oracle(uncal, products, tmp_path):
    from jwst.pipeline import Detector1Pipeline

    Detector1Pipeline.call(uncal, save_results=True, output_dir=str(tmp_path), steps=STEPS)
    for kind, path in products.items():
        with fits.open(path) as ours, fits.open(tmp_path / path.name) as oracle:
            for hdu in oracle:
                if not hdu.is_image or hdu.data is None or hdu.name not in ours:
                    continue
                mine = ours[hdu.name].data
                if hdu.data.dtype.kind in "iu":
                    np.testing.assert_array_equal(mine, hdu.data, err_msg=f"{kind} {hdu.name}")
                    continue
                if kind in SAVED[:3] or hdu.name == "AVDRKCUR":
                    np.testing.assert_array_equal(mine, hdu.data, err_msg=f"{kind} {hdu.name}")
                    continue
                # The Fourier transforms in float32 differ by about 1e-6 DN: 1e-5 of the noise, and the last two bits;
                # slopes have those of groups of up to 2000 DN.
                noise = READ_NOISE if hdu.data.ndim == 4 else oracle["ERR"].data
                last = np.abs(hdu.data) if hdu.data.ndim == 4 else np.float32(2000)
                limit = 1e-5 * noise + 4 * np.spacing(last) / (1 if hdu.data.ndim == 4 else 14.58888)
                np.testing.assert_array_equal(np.isnan(mine), np.isnan(hdu.data))
                assert np.nanmax(np.abs(mine - hdu.data) - limit) <= 0, f"{kind} {hdu.name}"
