"""Metadata under jwst's dotted names: what `stdatamodels` reads from the same file."""

from __future__ import annotations

import gc

import asdf
import numpy as np
import pytest
from astropy.io import fits
from stdatamodels.jwst import datamodels

from jwstdask.io.layout import open_layout
from jwstdask.io.metadata import flatten, keyword_names, model_name, nest, read_asdf_tree, read_metadata, read_wcs
from jwstdask.io.schema import model_schema
from tests.io.conftest import NX, NY, PRODUCTS, write_with_stdatamodels


def numbered(value, name):
    """Items of lists under numbers, as `stdatamodels` flattens them."""
    if isinstance(value, dict):
        return {key: leaf for child, item in value.items() for key, leaf in numbered(item, f"{name}.{child}").items()}
    if isinstance(value, list):
        return {
            key: leaf for child, item in enumerate(value) for key, leaf in numbered(item, f"{name}.{child}").items()
        }
    return {name: value}


@pytest.mark.parametrize("kind", PRODUCTS)
def test_same_as_stdatamodels(kind, tmp_path):
    path = write_with_stdatamodels(tmp_path / "a.fits", kind, 21, 0.6)
    layout = open_layout(path)
    other = ("_fits_hash", "history", "asdf_library", "extra_fits")
    with datamodels.open(str(path)) as model:
        expected = model.to_flat_dict(include_arrays=False)
    expected = {name: value for name, value in expected.items() if not name.startswith(other)}
    complete = {
        name: value for name, value in read_metadata(layout, complete=True).items() if not name.startswith(other)
    }
    assert {key: leaf for name, value in complete.items() for key, leaf in numbered(value, name).items()} == expected
    keywords = model_schema(PRODUCTS[kind][0]).keywords
    quick = {name: value for name, value in read_metadata(layout).items() if not name.startswith(other)}
    cards = {(keywords[name].hdu, keywords[name].keyword) for name in set(expected) & set(keywords)}
    assert set(quick) == {name for name, entry in keywords.items() if (entry.hdu, entry.keyword) in cards}
    for name, value in quick.items():
        # Two names may share a keyword: the last one is on the card.
        card = (keywords[name].hdu, keywords[name].keyword)
        *_, last = (twin for twin, entry in keywords.items() if (entry.hdu, entry.keyword) == card and twin in expected)
        # A card has 20 characters for a number: about 15 digits; the ASDF extension has all.
        assert value == (
            pytest.approx(expected[last], rel=1e-13, abs=0) if isinstance(value, float) else expected[last]
        )


def test_complete_adds_what_has_no_keyword(tmp_path):
    layout = open_layout(write_with_stdatamodels(tmp_path / "a.fits", "rate", 4, 0.2))
    assert "meta.asn.exptype" not in read_metadata(layout)
    meta = read_metadata(layout, complete=True)
    assert meta["meta.asn.exptype"] == "science"
    assert meta["meta.background.polynomial_info"] == [{"degree": [1, 2], "refpoint": [0.5, 1.5]}]
    assert meta["cal_logs.calwebb_detector1"] == ["2026-01-01 - first line", "second: line"]
    assert meta["history"][0]["description"].startswith("a note")


def test_unknown_keywords_are_kept(tmp_path):
    layout = open_layout(write_with_stdatamodels(tmp_path / "a.fits", "rate", 4, 0.2))
    expected = [["MYKEY", 17, "a private keyword"], ["MYTEXT", "it's", ""]]
    assert read_metadata(layout)["extra_fits.PRIMARY"] == expected


def test_edited_keyword_wins(tmp_path):
    """Who edits a header with FITS tools means it, although the ASDF extension still has the old value."""
    path = write_with_stdatamodels(tmp_path / "a.fits", "rate", 4, 1.0)
    fits.setval(path, "EXP_TYPE", value="MIR_IMAGE")
    fits.setval(path, "RA_REF", value=1.25, extname="SCI")
    meta = read_metadata(open_layout(path), complete=True)
    assert meta["meta.exposure.type"] == "MIR_IMAGE"
    assert meta["meta.wcsinfo.ra_ref"] == 1.25


def test_file_without_asdf_extension(tmp_path):
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((4, 4), "f4"), name="SCI")])
    hdus[0].header["EXP_TYPE"] = "NRC_IMAGE"
    hdus[0].header["DATAMODL"] = "OldModel"
    hdus[1].header["RA_REF"] = 5.5
    hdus.writeto(tmp_path / "a.fits")
    layout = open_layout(tmp_path / "a.fits")
    assert model_name(layout) == "ImageModel"
    meta = read_metadata(layout, complete=True)
    assert meta["meta.exposure.type"] == "NRC_IMAGE" and meta["meta.wcsinfo.ra_ref"] == 5.5
    assert read_wcs(layout) is None and read_asdf_tree(layout) == {}


@pytest.mark.parametrize(
    ("shape", "dtype", "model"),
    [
        ((2, 3, 4, 4), "u2", "Level1bModel"),
        ((2, 3, 4, 4), "f4", "RampModel"),
        ((3, 4, 4), "f4", "CubeModel"),
        ((4, 4), "f4", "ImageModel"),
    ],
)
def test_model_is_guessed(tmp_path, shape, dtype, model):
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros(shape, dtype), name="SCI")]).writeto(tmp_path / "a.fits")
    assert model_name(open_layout(tmp_path / "a.fits")) == model


def test_wcs_and_metadata_beside_it(tmp_path, gwcs_object):
    layout = open_layout(write_with_stdatamodels(tmp_path / "a.fits", "cal", 4, 0.2, gwcs_object))
    meta = read_metadata(layout, complete=True)
    assert not [name for name in meta if "wcs" in name.split(".")]
    assert meta["meta.asn.exptype"] == "science"
    x, y = np.meshgrid(np.arange(NX), np.arange(NY))
    np.testing.assert_array_equal(read_wcs(layout)(x, y), gwcs_object(x, y))


def test_arrays_inside_the_asdf_extension(tmp_path):
    """An array without an HDU lives in a block of the ASDF file; links to HDUs are not metadata."""
    model = datamodels.ImageModel((4, 4))
    model.meta.strange = {"vector": np.arange(500.0), "number": 3}
    model.save(str(tmp_path / "a.fits"))
    meta = read_metadata(open_layout(tmp_path / "a.fits"), complete=True)
    np.testing.assert_array_equal(meta["meta.strange.vector"], np.arange(500.0))
    assert meta["meta.strange.number"] == 3
    assert "data" not in meta


def test_anchors_shared_with_the_wcs(tmp_path):
    """YAML may define a node inside the WCS and point to it from outside: the text cannot be cut then."""
    from jwstdask.io import metadata

    text = "%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n---\nmeta:\n  wcs: !a/wcs-1.0.0\n    x: &i [1, 2]\n  y: *i\n"
    with pytest.raises(Exception, match="undefined alias"):
        metadata._load_yaml(metadata._without_wcs(text))
    tree = {"meta": {"y": 1}}
    shared = [1, 2, 3]
    tree["meta"]["wcs"] = {"x": shared}
    tree["meta"]["z"] = shared
    buffer = tmp_path / "tree.asdf"
    asdf.AsdfFile(tree).write_to(buffer)
    raw = buffer.read_bytes()
    column = fits.Column(array=np.frombuffer(raw, "u1")[None], format=f"{len(raw)}B", name="ASDF_METADATA")
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([column], name="ASDF")]).writeto(tmp_path / "a.fits")
    assert read_asdf_tree(open_layout(tmp_path / "a.fits"))["meta"] == {"y": 1, "z": [1, 2, 3]}


def test_real_slit(real_products):
    [path] = real_products.glob("9bd37d1*.fits")
    layout = open_layout(path)
    meta = read_metadata(layout, complete=True)
    with datamodels.open(str(path)) as model:
        assert model_name(layout) == type(model).__name__ == "SlitModel"
        assert meta["source_id"] == model.source_id
        assert meta["meta.wcsinfo.ra_ref"] == model.meta.wcsinfo.ra_ref
        x, y = np.meshgrid(np.arange(5.0, 300, 50), np.arange(5.0, 20, 5))
        wcs = read_wcs(layout)
        gc.collect()  # nothing of the WCS may live in a file object that is gone
        np.testing.assert_array_equal(wcs(x, y), model.meta.wcs(x, y))


def test_wcs_with_arrays_outlives_the_file(tmp_path):
    """Lookup tables of a WCS are in ASDF blocks."""
    import gwcs
    from astropy import units
    from astropy.modeling import models
    from gwcs import coordinate_frames as frames

    table = models.Tabular1D(np.arange(500.0), np.arange(500.0) ** 2)
    frame = frames.CoordinateFrame(1, "PIXEL", (0,), unit=units.pix, name="detector")
    wave = frames.SpectralFrame(unit=units.um, axes_order=(0,), name="world")
    path = write_with_stdatamodels(tmp_path / "a.fits", "cal", 4, 0.2, gwcs.WCS([(frame, table), (wave, None)]))
    wcs = read_wcs(open_layout(path))
    path.unlink()
    gc.collect()
    assert wcs.forward_transform(3.0) == 9.0
    assert isinstance(wcs.forward_transform.lookup_table, np.ndarray)


def test_flatten_and_nest():
    tree = {"meta": {"a": {"b": 1, "c": [1, {"d": 2}]}, "e": None}, "f": "x"}
    flat = {"meta.a.b": 1, "meta.a.c": [1, {"d": 2}], "f": "x"}
    assert flatten(tree) == flat
    assert nest(flat) == {"meta": {"a": {"b": 1, "c": [1, {"d": 2}]}}, "f": "x"}


def test_keyword_names():
    assert keyword_names("ImageModel", ["meta.exposure.type", "meta.none", "meta.wcsinfo.ra_ref"]) == {
        "meta.exposure.type": ("PRIMARY", "EXP_TYPE"),
        "meta.wcsinfo.ra_ref": ("SCI", "RA_REF"),
    }
