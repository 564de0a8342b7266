"""Exposures as Datasets: lazy, in strips of rows, and written back as they were."""

from __future__ import annotations

import builtins
import os
import pickle

import dask
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from stdatamodels.jwst import datamodels

from jwstdask.core import dq
from jwstdask.core.errors import InputError, ProductError
from jwstdask.io import layout as layout_module
from jwstdask.io.backend import flag_attributes, strip_rows
from jwstdask.io.dataset import open_exposure, write_exposure
from tests.io.conftest import NX, NY, PRODUCTS, random_array, write_with_stdatamodels
from tests.io.test_product import assert_same_file


@pytest.fixture
def reads(monkeypatch):
    """HDU names whose pixels are read."""
    names = []
    read = layout_module.FitsLayout.read
    table = layout_module.FitsLayout.table
    monkeypatch.setattr(
        layout_module.FitsLayout, "read", lambda self, name, *a, **k: (names.append(name), read(self, name, *a, **k))[1]
    )
    monkeypatch.setattr(
        layout_module.FitsLayout, "table", lambda self, name, *a: (names.append(name), table(self, name, *a))[1]
    )
    return names


@pytest.mark.parametrize("chunks", [{}, None])
def test_open_is_lazy(tmp_path, reads, chunks, gwcs_object):
    path = write_with_stdatamodels(tmp_path / "jw_cal.fits", "cal", 1, 0.3, gwcs_object)

    def compute(*args, **kwargs):
        raise AssertionError("something was computed")

    with dask.config.set(scheduler=compute):
        dataset = xr.open_dataset(path, engine="jwst", chunks=chunks)
        repr(dataset)
        dataset["sci"][3:5]
    assert reads == []
    np.testing.assert_array_equal(dataset["sci"][3:5].values, fits.getdata(path, "SCI")[3:5])
    assert reads == ["SCI"]


@pytest.mark.parametrize("kind", PRODUCTS)
def test_values_dimensions_and_attributes(kind, tmp_path):
    path = write_with_stdatamodels(tmp_path / "a.fits", kind, 2, 0.3)
    dataset = open_exposure(path)
    with fits.open(path) as hdus:
        for hdu in hdus[1:-1]:
            if hdu.data is None:
                continue  # only keywords
            name = {"GROUP": "group_table"}.get(hdu.name, hdu.name.lower())
            variable = dataset[name]
            assert variable.chunks is not None
            if isinstance(hdu, fits.BinTableHDU):
                assert variable.dims == (f"{hdu.name.lower()}_row",)
                for column in hdu.columns.names:
                    np.testing.assert_array_equal(variable.values[column], hdu.data[column])
            else:
                assert variable.dtype == hdu.data.dtype.newbyteorder("=")
                np.testing.assert_array_equal(variable.values, hdu.data)
    expected = {
        "uncal": ("integration", "group", "y", "x"),
        "ramp": ("integration", "group", "y", "x"),
        "rateints": ("integration", "y", "x"),
        "calints": ("integration", "y", "x"),
    }
    if "sci" in dataset:
        assert dataset["sci"].dims == expected.get(kind, ("y", "x"))
    if kind == "i2d":
        assert dataset["con"].dims == ("plane", "y", "x")
    if kind == "uncal":
        assert dataset["zeroframe"].dims == ("integration", "y", "x")
        assert dataset["refout"].dims == ("integration", "group", "y", "x_refout")
    if kind == "fitopt":
        assert dataset["slope"].dims == ("integration", "segment", "y", "x")
        assert dataset["crmag"].dims == ("integration", "jump", "y", "x")
        assert dataset["pedestal"].dims == ("integration", "y", "x")
    assert dataset.attrs["meta.model_type"] == PRODUCTS[kind][0]


def test_flags_say_what_they_mean(tmp_path):
    dataset = open_exposure(write_with_stdatamodels(tmp_path / "a.fits", "ramp", 2, 0.3))
    masks = dataset["pixeldq"].attrs["flag_masks"]
    assert masks.dtype == np.uint32 and len(masks) == 32
    meaning = dict(zip(dataset["pixeldq"].attrs["flag_meanings"].split(), masks.tolist(), strict=True))
    assert meaning == dq.PIXEL
    assert dataset["groupdq"].attrs["flag_masks"].dtype == np.uint8
    assert (
        dict(zip(dataset["groupdq"].attrs["flag_meanings"].split(), dataset["groupdq"].attrs["flag_masks"])) == dq.GROUP
    )
    assert flag_attributes("sci") == {} and "flag_masks" not in dataset["sci"].attrs


def test_units(tmp_path):
    model = datamodels.ImageModel((4, 4))
    model.err = np.zeros((4, 4), "f4")
    model.meta.bunit_data = "DN/s"
    model.save(str(tmp_path / "a.fits"))
    dataset = open_exposure(tmp_path / "a.fits")
    assert dataset["sci"].attrs["units"] == "DN/s" and "units" not in dataset["err"].attrs


@pytest.mark.parametrize(
    ("shape", "dtype", "rows"),
    [
        ((10, 2048, 2048), "u2", 256),
        ((50, 10, 2048, 2048), "u2", 32),
        ((2, 32, 32), "f4", 32),
        ((1000, 50, 256, 256), "f4", 8),
        ((64, 2048, 2048), "f4", 128),
    ],
)
def test_strips(shape, dtype, rows):
    lazy = xr.Variable(
        [*[f"axis{axis}" for axis in range(len(shape) - 2)], "y", "x"], np.broadcast_to(np.zeros((), dtype), shape)
    )
    assert strip_rows({"sci": lazy}, shape[-2]) == rows


def test_chunks_are_rows_with_all_integrations(tmp_path):
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(np.zeros((3, 2, 700, 8), "u2"), name="SCI"),
            fits.ImageHDU(np.zeros((700, 8), "u4"), name="DQ"),
        ]
    ).writeto(tmp_path / "a.fits")
    dataset = open_exposure(tmp_path / "a.fits")
    assert dataset["sci"].chunks == ((3,), (2,), (256, 256, 188), (8,))
    assert dataset["dq"].chunks == ((256, 256, 188), (8,))


@pytest.mark.parametrize(
    "key",
    [{"y": slice(2, 9, 3)}, {"y": slice(8, 2, -2), "x": -1}, {"integration": 1, "x": [0, 3, 3]}, {"y": slice(4, 4)}],
)
def test_indexing_without_dask(tmp_path, key):
    path = write_with_stdatamodels(tmp_path / "a.fits", "rateints", 2, 0.1)
    lazy = open_exposure(path, chunks=False)["sci"]
    assert lazy.chunks is None
    loaded = xr.DataArray(fits.getdata(path, "SCI"), dims=("integration", "y", "x"))
    np.testing.assert_array_equal(lazy.isel(key).values, loaded.isel(key).values)


def test_wcs_is_restored_on_first_use(tmp_path, gwcs_object, monkeypatch):
    path = write_with_stdatamodels(tmp_path / "a.fits", "cal", 1, 0.3, gwcs_object)
    restored = []
    from jwstdask.io import backend

    read = backend.read_wcs
    monkeypatch.setattr(backend, "read_wcs", lambda *arguments: (restored.append(1), read(*arguments))[1])
    dataset = open_exposure(path)
    repr(dataset)
    assert dataset.coords["wcs"].dims == () and restored == []
    assert dataset.coords["wcs"].item()(1.0, 2.0) == gwcs_object(1.0, 2.0)
    assert restored == [1]
    assert "wcs" not in open_exposure(write_with_stdatamodels(tmp_path / "b.fits", "rate", 1, 0.1)).coords


def test_pickle(tmp_path, gwcs_object):
    path = write_with_stdatamodels(tmp_path / "a.fits", "cal", 1, 0.1, gwcs_object)
    dataset = open_exposure(path)
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy["sci"].values, dataset["sci"].values)
    assert copy.coords["wcs"].item()(1.0, 2.0) == gwcs_object(1.0, 2.0)


@pytest.mark.parametrize("kind", PRODUCTS)
@pytest.mark.parametrize("chunks", [{}, False, {"x": 4, "y": 5}])
@pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")
def test_round_trip(kind, chunks, tmp_path, gwcs_object):
    wcs = gwcs_object if kind in ("cal", "i2d") else None
    original = write_with_stdatamodels(tmp_path / "original.fits", kind, 31, 0.3, wcs)
    write_exposure(open_exposure(original, chunks=chunks), tmp_path / "ours.fits", sync=False)
    assert_same_file(original, tmp_path / "ours.fits")


def test_changed_dataset(tmp_path):
    """What a user does in a notebook: change pixels and metadata, drop an array, write."""
    path = write_with_stdatamodels(tmp_path / "a.fits", "rate", 1, 0.3)
    dataset = open_exposure(path)
    dataset["sci"] = dataset["sci"] * np.float32(2)
    dataset.attrs["meta.cal_step.gain_scale"] = "COMPLETE"
    dataset = dataset.drop_vars("var_rnoise")
    write_exposure(dataset, tmp_path / "b.fits")
    with datamodels.ImageModel(str(tmp_path / "b.fits"), strict_validation=True) as model:
        np.testing.assert_array_equal(model.data, fits.getdata(path, "SCI") * np.float32(2))
        assert model.meta.cal_step.gain_scale == "COMPLETE"
        assert "VAR_RNOISE" not in [hdu.name for hdu in fits.open(tmp_path / "b.fits")]


def test_model_follows_the_dimensions(tmp_path):
    """Attributes of a ramp on an image: the product is an ImageModel."""
    dataset = xr.Dataset({"sci": (("y", "x"), np.ones((4, 5), "f4"))}, attrs={"meta.model_type": "RampModel"})
    write_exposure(dataset, tmp_path / "a.fits")
    assert fits.getval(tmp_path / "a.fits", "DATAMODL") == "ImageModel"
    cube = xr.Dataset({"sci": (("integration", "y", "x"), np.ones((2, 4, 5), "f4"))})
    write_exposure(cube, tmp_path / "b.fits")
    assert fits.getval(tmp_path / "b.fits", "DATAMODL") == "CubeModel"
    write_exposure(cube, tmp_path / "c.fits", model="SlitModel")
    assert fits.getval(tmp_path / "c.fits", "DATAMODL") == "SlitModel"
    with pytest.raises(ProductError, match="no variable sci"):
        write_exposure(xr.Dataset(), tmp_path / "d.fits")


def test_failing_computation_leaves_nothing(tmp_path):
    def fail(block):
        raise ZeroDivisionError

    path = write_with_stdatamodels(tmp_path / "a.fits", "rate", 1, 0.1)
    dataset = open_exposure(path)
    dataset["sci"] = dataset["sci"].copy(
        data=dataset["sci"].data.map_blocks(fail, dtype="f4", meta=np.zeros((0, 0), "f4"))
    )
    with pytest.raises(ZeroDivisionError):
        write_exposure(dataset, tmp_path / "b.fits")
    assert os.listdir(tmp_path) == ["a.fits"]


@pytest.fixture
def slits(tmp_path, gwcs_object):
    rng = np.random.default_rng(9)
    model = datamodels.MultiSlitModel()
    for number, name in enumerate(("S200A1", "S400A1", "S400A1")):
        slit = datamodels.SlitModel()
        slit.data = random_array(rng, (5, 6 + number), "float32")
        slit.dq = random_array(rng, (5, 6 + number), "uint32")
        slit.name = name
        slit.source_id = 10 + number
        slit.meta.wcs = gwcs_object
        model.slits.append(slit)
    model.meta.exposure.type = "NRS_FIXEDSLIT"
    model.save(str(tmp_path / "slits.fits"))
    return tmp_path / "slits.fits"


def test_slits_are_nodes_of_a_tree(slits, reads, gwcs_object):
    tree = open_exposure(slits)
    assert isinstance(tree, xr.DataTree) and reads == []
    assert list(tree.children) == ["S200A1", "S400A1", "S400A1_3"]
    assert tree.attrs["meta.exposure.type"] == "NRS_FIXEDSLIT" and "slits" not in tree.attrs
    for version, node in enumerate(tree.children.values(), 1):
        assert node.attrs["extver"] == version and node.attrs["source_id"] == 9 + version
        np.testing.assert_array_equal(node["sci"].values, fits.getdata(slits, ("SCI", version)))
        assert node.coords["wcs"].item()(1.0, 2.0) == gwcs_object(1.0, 2.0)
    one = xr.open_dataset(slits, engine="jwst", version=2)
    assert one.attrs["source_id"] == 11 and one["sci"].shape == (5, 7)


def test_slits_round_trip(slits, tmp_path, gwcs_object):
    write_exposure(open_exposure(slits), tmp_path / "ours.fits")
    assert_same_file(slits, tmp_path / "ours.fits", tree=False)
    with datamodels.MultiSlitModel(str(tmp_path / "ours.fits"), strict_validation=True) as model:
        assert [slit.source_id for slit in model.slits] == [10, 11, 12]
        assert model.slits[2].meta.wcs(1.0, 2.0) == gwcs_object(1.0, 2.0)


def test_spectra_are_nodes_of_a_tree(tmp_path):
    model = datamodels.MultiSpecModel()
    for number in range(2):
        spec = datamodels.SpecModel()
        spec.spec_table = np.zeros(4 + number, dtype=spec.get_dtype("spec_table"))
        spec.spec_table["WAVELENGTH"] = number + 1
        spec.source_id = number
        model.spec.append(spec)
    model.save(str(tmp_path / "x1d.fits"))
    tree = open_exposure(tmp_path / "x1d.fits")
    tables = [node["extract1d"].values for node in tree.children.values()]
    assert [len(table) for table in tables] == [4, 5]
    assert [table["WAVELENGTH"][0] for table in tables] == [1, 2]


def test_real_files(real_products, tmp_path):
    for path in sorted(real_products.glob("*.fits")):
        dataset = open_exposure(path)
        np.testing.assert_array_equal(dataset["sci"].values, fits.getdata(path, "SCI"))
        write_exposure(dataset, tmp_path / "ours.fits", sync=False)
        with fits.open(path) as expected, fits.open(tmp_path / "ours.fits") as found:
            for hdu in expected[1:-1]:
                np.testing.assert_array_equal(found[hdu.name].data, hdu.data)


def test_real_slit(real_products):
    [path] = real_products.glob("9bd37d1*.fits")
    tree = xr.open_datatree(path, engine="jwst")
    assert tree["sci"].shape == (25, 341) and tree.attrs["meta.instrument.name"] == "NIRSPEC"
    longitude, latitude, wavelength = tree.coords["wcs"].item()(100.0, 10.0)
    assert 0 < wavelength < 6 and abs(longitude - tree.attrs["source_ra"]) < 0.01 and abs(latitude) < 90


def test_engine_is_registered():
    assert "jwst" in xr.backends.list_engines()
    engine = xr.backends.list_engines()["jwst"]
    assert engine.guess_can_open("x/jw01_cal.fits") and not engine.guess_can_open("x.nc")
    assert not engine.guess_can_open(builtins.object())


def test_broken_exposures(tmp_path):
    image = fits.ImageHDU(np.zeros((NY, NX), "f4"), name="SCI")
    wrong = fits.ImageHDU(np.zeros((NX, NY), "f4"), name="ERR")
    fits.HDUList([fits.PrimaryHDU(), image, wrong]).writeto(tmp_path / "a.fits")
    with pytest.raises(InputError, match="HDU ERR has"):
        open_exposure(tmp_path / "a.fits")
    with pytest.raises(InputError, match="no such file"):
        open_exposure(tmp_path / "absent.fits")
