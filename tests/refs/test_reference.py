"""Promise: a reference is read lazily, cut as jwst cuts it, and carries the standard data-quality bits."""

from __future__ import annotations

import json
import logging
import pickle

import asdf
import numpy as np
import pytest
from astropy.io import fits

from jwstdask.core import dq as flags
from jwstdask.core.errors import InputError, ReferenceFileError
from jwstdask.refs.flags import add_flags, remap_dq
from jwstdask.refs.reference import Reference, file_problem, open_reference, open_references
from tests.using import is_mapped

FULL = {"SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": 2048, "SUBSIZE2": 2048}


def exposure(xstart, ystart, xsize, ysize, **extra):
    meta = {
        "xstart": xstart,
        "ystart": ystart,
        "xsize": xsize,
        "ysize": ysize,
        "name": "SUB",
        "fastaxis": 1,
        "slowaxis": 2,
    }
    meta |= extra
    return {"meta.filename": "a_uncal.fits", "meta.instrument.name": "NIRCAM"} | {
        f"meta.subarray.{name}": value for name, value in meta.items()
    }


def oracle_exposure(meta, shape):
    """The same exposure as a data model of the oracle."""
    from stdatamodels.jwst import datamodels

    model = datamodels.ImageModel(shape)
    for name, value in meta.items():
        if name.startswith("meta.") and value is not None:
            model[name] = value
    return model


@pytest.fixture
def superbias(tmp_path, write_reference):
    """A full-frame reference whose pixels know their place, with flags on unusual bits."""
    y, x = np.mgrid[:2048, :2048]
    rng = np.random.default_rng(5)
    quality = rng.integers(0, 16, (2048, 2048)).astype(np.uint32)
    definitions = [(0, 1, "DO_NOT_USE"), (1, 2, "HOT"), (2, 4, "UNRELIABLE_BIAS")]  # bit 3 is not defined
    return write_reference(
        tmp_path / "superbias.fits",
        {"SCI": (y * 10000 + x).astype(np.float32), "ERR": (x - y).astype(np.float32), "DQ": quality},
        definitions,
        **FULL,
        DATAMODL="SuperBiasModel",
    )


# ----------------------------------------------------------------------------------------------------------------------
# Arrays, metadata, tables


def test_arrays_and_metadata(superbias):
    reference = open_reference(superbias, "SUPERBIAS")
    assert reference.reftype == "superbias" and reference.kind == "fits"
    assert reference.meta["meta.instrument.detector"] == "NRCA1"
    assert reference.meta["meta.subarray.xsize"] == 2048
    assert reference.header()["REFTYPE"] == "SUPERBIAS"
    assert "err" in reference and "coeffs" not in reference
    data = reference.array("sci")
    assert is_mapped(data) and not data.flags.writeable
    assert data[5, 7] == 50007
    assert np.shares_memory(data, reference.array("DATA")) or np.array_equal(data[:3], reference.array("data")[:3])
    with fits.open(superbias) as file:
        np.testing.assert_array_equal(np.asarray(reference.array("err"), np.float32), file["ERR"].data)


def test_missing_extension(superbias):
    with pytest.raises(ReferenceFileError, match=r"superbias\.fits.*no HDU COEFFS.*SCI"):
        open_reference(superbias, "superbias").array("coeffs")


def test_pickles_small(superbias):
    reference = open_reference(superbias, "superbias")
    _ = reference.meta, reference.array("sci"), reference.dq
    cut = reference.match(exposure(11, 21, 64, 32))
    for item in (reference, cut):
        data = pickle.dumps(item)
        assert len(data) < 500
        again = pickle.loads(data)
        assert again == item and hash(again) == hash(item)
        np.testing.assert_array_equal(again.array("sci"), item.array("sci"))
    assert cut != reference


def test_replaced_file_is_read_again(tmp_path, write_reference):
    path = tmp_path / "gain.fits"
    write_reference(path, {"SCI": np.ones((4, 4), np.float32)}, SUBSTRT1=1, SUBSTRT2=1, SUBSIZE1=4, SUBSIZE2=4)
    reference = open_reference(path, "gain")
    assert reference.array("sci").shape == (4, 4)
    write_reference(
        path, {"SCI": np.full((8, 8), 2, np.float32)}, SUBSTRT1=1, SUBSTRT2=1, SUBSIZE1=8, SUBSIZE2=8, GAINFACT=2.5
    )
    assert reference.array("sci").shape == (8, 8)
    assert reference.meta["meta.exposure.gain_factor"] == 2.5
    assert reference.match(exposure(1, 1, 8, 8)) is reference


def test_metadata_by_type_where_the_file_names_no_model(tmp_path, write_reference):
    array = {"SCI": np.ones((1, 4, 4), np.float32)}
    path = write_reference(tmp_path / "dark.fits", array, NFRAMES=8, GROUPGAP=1, NGROUPS=1, DATAMODL="NoSuchModel")
    meta = open_reference(path, "dark").meta
    assert (meta["meta.exposure.nframes"], meta["meta.exposure.groupgap"]) == (8, 1)


def test_scaled_and_unsigned_images(tmp_path):
    """Images that do not stand in the file as they are."""
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) + 40000
    units = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(values, name="SCI")])
    units.writeto(tmp_path / "u.fits")
    np.testing.assert_array_equal(open_reference(tmp_path / "u.fits", "any").array("sci"), values)


def test_table(tmp_path):
    columns = [
        fits.Column("FILTER", "12A", array=["F200W", "F090W   "]),
        fits.Column("PhotMJSR", "E", unit="MJy/sr", array=[1.5, 2.5]),
        fits.Column("nelem", "J", array=[3, 4]),
        fits.Column("curve", "3D", array=np.arange(6.0).reshape(2, 3)),
        fits.Column("flag", "L", array=[True, False]),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="PHOTOM")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "photom.fits")
    rows = open_reference(tmp_path / "photom.fits", "photom").table("photom")
    assert rows.dtype.names == ("filter", "photmjsr", "nelem", "curve", "flag")
    assert rows["filter"].tolist() == ["F200W", "F090W"]
    assert rows["photmjsr"].dtype == np.float32 and rows["photmjsr"].tolist() == [1.5, 2.5]
    np.testing.assert_array_equal(rows["curve"], np.arange(6.0).reshape(2, 3))
    assert rows["flag"].tolist() == [True, False]
    with pytest.raises(ReferenceFileError, match="not a table"):
        open_reference(tmp_path / "photom.fits", "photom").table("primary")


def test_asdf_and_json(tmp_path):
    from astropy.modeling.models import Shift

    tree = {"meta": {"reftype": "distortion", "instrument": {"name": "NIRCAM"}}, "model": Shift(2.5), "grid": np.eye(3)}
    asdf.AsdfFile(tree).write_to(tmp_path / "d.asdf")
    reference = open_reference(tmp_path / "d.asdf", "distortion")
    assert reference.kind == "asdf" and "model" in reference
    assert reference.asdf["model"](1.0) == 3.5
    assert reference.meta["meta.instrument.name"] == "NIRCAM"
    np.testing.assert_array_equal(reference.array("grid"), np.eye(3))
    assert pickle.loads(pickle.dumps(reference)).asdf["model"](1.0) == 3.5
    (tmp_path / "e.json").write_text(json.dumps({"reftype": "EXTRACT1D", "apertures": [{"id": "FULL"}]}))
    extract = open_reference(tmp_path / "e.json", "extract1d")
    assert extract.kind == "json" and extract.json["apertures"][0]["id"] == "FULL"


def test_not_applicable(superbias):
    opened = open_references({"superbias": str(superbias), "ipc": "N/A", "dark": None})
    assert isinstance(opened["superbias"], Reference) and opened["ipc"] is None and opened["dark"] is None


# ----------------------------------------------------------------------------------------------------------------------
# Data quality


def test_flags_of_a_reference_as_the_oracle(superbias):
    from stdatamodels.jwst import datamodels

    mine = open_reference(superbias, "superbias").dq
    with datamodels.SuperBiasModel(str(superbias)) as model:
        np.testing.assert_array_equal(mine, model.dq)
    assert mine.dtype == np.uint32
    assert np.bitwise_or.reduce(mine, axis=None) == flags.DO_NOT_USE | flags.HOT | flags.UNRELIABLE_BIAS


@pytest.mark.parametrize("seed", range(8))
def test_remap_as_the_oracle(seed, caplog):
    """Random definitions: any value for any name, unknown names, flags missing from the table, several bits."""
    from types import SimpleNamespace

    from stdatamodels.dynamicdq import dynamic_mask
    from stdatamodels.jwst.datamodels.dqflags import pixel

    rng = np.random.default_rng(seed)
    names = rng.permutation([*flags.PIXEL, "GOOD", "NO_SUCH_FLAG"])[: rng.integers(1, 20)]
    values = [int(1 << bit) for bit in rng.permutation(32)[: len(names)]]
    if seed % 2:
        values[0] |= 1 << 5
    data = rng.integers(0, 2**32, (16, 17), dtype=np.uint64).astype(np.uint32) & rng.integers(
        0, 2**32, dtype=np.uint64
    ).astype(np.uint32)
    table = np.array(list(zip(values, names)), dtype=[("VALUE", "u4"), ("NAME", "U40")])
    expected = dynamic_mask(SimpleNamespace(dq=data, dq_def=table), pixel)
    np.testing.assert_array_equal(remap_dq(data, [(value, str(name)) for value, name in zip(values, names)]), expected)


def test_unknown_flag_is_reported(caplog):
    with caplog.at_level(logging.WARNING):
        assert remap_dq(np.array([[3]], np.uint32), [(1, "HOT"), (2, "SPARKLING")], "m.fits").item() == flags.HOT
    assert "m.fits" in caplog.text and "SPARKLING" in caplog.text


def test_no_flags_and_no_definitions(tmp_path, write_reference):
    array = np.ones((2048, 2048), np.float32)
    reference = open_reference(write_reference(tmp_path / "gain.fits", {"SCI": array}, **FULL), "gain")
    assert reference.dq.shape == (2048, 2048) and not reference.dq.any()
    assert reference.match(exposure(5, 6, 7, 8)).dq.shape == (8, 7)
    quality = np.full((2048, 2048), flags.REFERENCE_PIXEL, np.uint32)
    path = write_reference(tmp_path / "mask.fits", {"DQ": quality}, **FULL)
    np.testing.assert_array_equal(open_reference(path, "mask").dq, quality)


# ----------------------------------------------------------------------------------------------------------------------
# Frames


WINDOWS = [
    (1, 1, 2048, 2048),
    (1, 1, 64, 64),
    (1985, 1985, 64, 64),
    (1, 1793, 2048, 256),
    (897, 101, 65, 33),
    (3, 1, 1, 2048),
]


@pytest.mark.parametrize("window", WINDOWS)
def test_cut_as_the_oracle(superbias, window):
    from jwst.lib import reffile_utils
    from stdatamodels.jwst import datamodels

    meta = exposure(*window)
    shape = (window[3], window[2])
    science = oracle_exposure(meta, shape)
    with datamodels.SuperBiasModel(str(superbias)) as model:
        same = reffile_utils.ref_matches_sci(science, model)
        theirs = model if same else reffile_utils.get_subarray_model(science, model)
        reference = open_reference(superbias, "superbias")
        assert reference.matches(meta, shape) == same
        mine = reference.match(meta, shape)
        assert (mine is reference) == same
        np.testing.assert_array_equal(mine.array("sci"), theirs.data)
        np.testing.assert_array_equal(mine.array("err"), theirs.err)
        np.testing.assert_array_equal(mine.dq, theirs.dq)
    assert is_mapped(mine.array("sci"))


def test_coefficients_and_other_arrays(tmp_path, write_reference):
    """Cubes are cut in their last two dimensions; arrays of another frame are left whole."""
    y, x = np.mgrid[:2048, :2048]
    cube = np.stack([x, y]).astype(np.float32)
    kernel = np.arange(9, dtype=np.float32).reshape(3, 3)
    path = write_reference(tmp_path / "lin.fits", {"COEFFS": cube, "INV_COEFFS": -cube, "KERNEL": kernel}, **FULL)
    cut = open_reference(path, "linearity").match(exposure(101, 201, 30, 20))
    np.testing.assert_array_equal(cut.array("coeffs"), cube[:, 200:220, 100:130])
    np.testing.assert_array_equal(cut.array("inv_coeffs"), -cube[:, 200:220, 100:130])
    np.testing.assert_array_equal(cut.array("kernel"), kernel)


def test_subarray_reference(tmp_path, write_reference):
    """A reference that is itself a subarray: corner differences count."""
    array = np.arange(80 * 100, dtype=np.float32).reshape(80, 100)
    keywords = {"SUBSTRT1": 501, "SUBSTRT2": 301, "SUBSIZE1": 100, "SUBSIZE2": 80}
    reference = open_reference(write_reference(tmp_path / "s.fits", {"SCI": array}, **keywords), "flat")
    np.testing.assert_array_equal(reference.match(exposure(511, 305, 20, 10)).array("sci"), array[4:14, 10:30])
    for window in [(500, 301, 20, 10), (501, 300, 20, 10), (582, 301, 20, 10), (501, 372, 20, 10), (1, 1, 2048, 2048)]:
        with pytest.raises(
            ReferenceFileError, match=r"s\.fits.*flat reference does not fit a_uncal\.fits.*override_flat"
        ):
            reference.match(exposure(*window))


@pytest.mark.parametrize(
    ("instrument", "shape", "fits_in"),
    [
        ("NIRCAM", (2048, 2048), True),
        ("MIRI", (1024, 1032), True),
        ("MIRI", (1024, 1024), False),
        ("NIRCAM", (64, 64), False),
    ],
)
def test_missing_subarray_keywords(tmp_path, write_reference, caplog, instrument, shape, fits_in):
    from jwst.lib import reffile_utils
    from stdatamodels.jwst import datamodels

    path = write_reference(tmp_path / "r.fits", {"SCI": np.ones(shape, np.float32)}, INSTRUME=instrument, SUBSTRT1=1)
    meta = exposure(1, 1, shape[1], shape[0])
    reference = open_reference(path, "gain")
    with datamodels.GainModel(str(path)) as model:
        if fits_in:
            with caplog.at_level(logging.WARNING):
                assert reference.match(meta) is reference
            assert "full frame" in caplog.text and str(path) in caplog.text
            assert reffile_utils.ref_matches_sci(oracle_exposure(meta, shape), model)
        else:
            with pytest.raises(ReferenceFileError, match=r"r\.fits.*is missing from a reference of"):
                reference.match(meta)
            with pytest.raises(ValueError):
                reffile_utils.ref_matches_sci(oracle_exposure(meta, shape), model)


def test_header_and_array_disagree(tmp_path, write_reference, caplog):
    """The array is believed, with a warning."""
    keywords = {"SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": 2048, "SUBSIZE2": 2048}
    path = write_reference(tmp_path / "r.fits", {"SCI": np.ones((64, 32), np.float32)}, **keywords)
    reference = open_reference(path, "gain")
    with caplog.at_level(logging.WARNING):
        assert reference.match(exposure(1, 1, 32, 64)) is reference
    assert "SUBSIZE1 is 2048" in caplog.text and "SUBSIZE2 is 2048" in caplog.text
    with pytest.raises(ReferenceFileError, match="does not fit"):
        reference.match(exposure(1, 1, 2048, 2048))


def test_bad_corners(tmp_path, write_reference, superbias):
    keywords = {"SUBSTRT1": 0, "SUBSTRT2": 1, "SUBSIZE1": 8, "SUBSIZE2": 8}
    path = write_reference(tmp_path / "r.fits", {"SCI": np.ones((8, 8), np.float32)}, **keywords)
    with pytest.raises(ReferenceFileError, match="SUBSTRT1 = 0"):
        open_reference(path, "gain").match(exposure(1, 1, 8, 8))
    reference = open_reference(superbias, "superbias")
    with pytest.raises(InputError, match=r"a_uncal\.fits.*SUBSTRT2 = 0"):
        reference.match(exposure(1, 0, 8, 8))
    with pytest.raises(InputError, match=r"a_uncal\.fits.*is missing"):
        reference.match(exposure(1, 1, 8, None))


def test_irs2(tmp_path, write_reference):
    """3200 stored rows of a 2048-row detector are its full frame."""
    path = write_reference(tmp_path / "r.fits", {"SCI": np.ones((3200, 2048), np.float32)}, INSTRUME="NIRSPEC", **FULL)
    reference = open_reference(path, "superbias")
    assert reference.match(exposure(1, 1, 2048, 2048), (3200, 2048)) is reference
    with pytest.raises(ReferenceFileError, match="3200 rows"):
        reference.match(exposure(1, 1, 2048, 2048), (2048, 2048))


def test_exposure_of_another_size_than_it_says(superbias, caplog):
    with caplog.at_level(logging.WARNING):
        cut = open_reference(superbias, "superbias").match(exposure(1, 1, 2048, 2048), (100, 200))
    assert cut.array("sci").shape == (100, 200)
    assert "a_uncal.fits" in caplog.text


def striped(window, axes, reads, repeat=1, interleave=0, superstripes=(0, 0), name="SUB64"):
    """An exposure in stripes; `reads` are reads1, skips1, reads2, skips2."""
    words = ("multistripe_reads1", "multistripe_skips1", "multistripe_reads2", "multistripe_skips2")
    extra = dict(zip(words, reads)) | {"repeat_stripe": repeat, "interleave_reads1": interleave}
    extra |= {"num_superstripe": superstripes[0], "superstripe_step": superstripes[1]}
    return exposure(*window, name=name, fastaxis=axes[0], slowaxis=axes[1], **extra)


STRIPES = {
    # NIRCam DHS: four substripes, each after one reference row
    "dhs": striped((1, 1, 2048, 164), (-1, 2), (1, 1058, 40, 82), interleave=1, name="SUB164STRIPE4_DHS"),
    "dhs with a wrong start": striped((1, 7, 2048, 82), (-1, 2), (1, 1058, 40, 82), name="SUB164STRIPE4_DHS"),
    "reversed": striped((1, 2048, 2048, 82), (1, -2), (1, 100, 40, 50)),
    "reversed, early product": striped((1, 1, 2048, 82), (1, -2), (1, 100, 40, 50)),
    "no repeat": striped((1, 3, 2048, 101), (1, 2), (1, 10, 50, 7), repeat=0),
    "no reference rows": striped((1, 1, 2048, 80), (1, 2), (0, 12, 40, 9), repeat=0),
    "slow axis x": striped((2040, 101, 60, 256), (-2, -1), (4, 30, 26, 0), interleave=1),
    "superstripes": striped((1, 1, 2048, 68), (1, 2), (4, 0, 64, 0), superstripes=(10, 64)),
    "superstripes of the step's size": striped((1, 1, 2048, 64), (1, 2), (0, 0, 0, 0), superstripes=(10, 64)),
    "soss": striped((2045, 1793, 204, 256), (-2, -1), (4, 0, 200, 0), superstripes=(9, 200), name="SUB204STRIPE_SOSS"),
}


@pytest.mark.parametrize("kind", list(STRIPES))
def test_stripes_as_the_oracle(superbias, kind):
    from jwst.lib import reffile_utils
    from stdatamodels.jwst import datamodels

    meta = STRIPES[kind]
    science = oracle_exposure(meta, (meta["meta.subarray.ysize"], meta["meta.subarray.xsize"]))
    with datamodels.SuperBiasModel(str(superbias)) as model:
        theirs = reffile_utils.get_subarray_model(science, model)
        mine = open_reference(superbias, "superbias").match(meta)
        np.testing.assert_array_equal(mine.array("sci"), theirs.data)
        np.testing.assert_array_equal(mine.dq, theirs.dq)


def test_stripes_that_do_not_add_up(superbias):
    meta = STRIPES["dhs"] | {"meta.subarray.ysize": 163}
    with pytest.raises(InputError, match=r"a_uncal\.fits.*multi-stripe.*164 rows do not fill the 163"):
        open_reference(superbias, "superbias").match(meta)
    meta = STRIPES["dhs"] | {"meta.subarray.multistripe_skips1": 2040}
    with pytest.raises(ReferenceFileError, match="does not cover the stripes"):
        open_reference(superbias, "superbias").match(meta)


# ----------------------------------------------------------------------------------------------------------------------
# Damage


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(ReferenceFileError, match=r"absent\.fits.*No such file.*refs sync"):
        open_reference(tmp_path / "absent.fits", "gain")
    (tmp_path / "empty.fits").touch()
    with pytest.raises(ReferenceFileError, match=r"empty\.fits.*is empty"):
        open_reference(tmp_path / "empty.fits", "gain")


@pytest.mark.parametrize("keep", [100, 2880, 3500, 6000, 200000, -1])
def test_truncated_fits(tmp_path, write_reference, keep):
    path = write_reference(tmp_path / "g.fits", {"SCI": np.ones((300, 300), np.float32)}, **FULL)
    whole = path.read_bytes()
    assert file_problem(path) is None
    data_end = 2 * 2880 + 300 * 300 * 4  # two headers of one block and the pixels; the rest is padding
    path.write_bytes(whole[: data_end - 1] if keep == -1 else whole[:keep])
    if keep == 2880:
        # a primary header alone is a legal file; the missing array is found when it is wanted
        with pytest.raises(ReferenceFileError, match="no HDU SCI"):
            open_reference(path, "gain").array("sci")
    else:
        with pytest.raises(ReferenceFileError, match=r"g\.fits.*(truncated|not FITS|not a FITS)"):
            open_reference(path, "gain")
        assert file_problem(path)


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.6, 0.999])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_truncated_asdf(tmp_path, fraction, compression):
    path = tmp_path / "r.asdf"
    grid = np.random.default_rng(1).random((50, 50))
    asdf.AsdfFile({"meta": {"a": 1}, "grid": grid, "more": grid + 1}).write_to(path, all_array_compression=compression)
    assert file_problem(path) is None
    whole = path.read_bytes()
    cut = whole.rindex(b"#ASDF BLOCK INDEX") if b"#ASDF BLOCK INDEX" in whole else len(whole)
    path.write_bytes(whole[: int(cut * fraction)])
    assert "truncated" in file_problem(path)
    with pytest.raises(ReferenceFileError, match=r"r\.asdf.*truncated"):
        open_reference(path, "regions").asdf


def test_other_damage(tmp_path):
    (tmp_path / "web.fits").write_text("<html>not found</html>" * 200)
    with pytest.raises(ReferenceFileError, match=r"web\.fits.*not a FITS file"):
        open_reference(tmp_path / "web.fits", "gain")
    (tmp_path / "a.json").write_text('{"a": 1')
    with pytest.raises(ReferenceFileError, match=r"a\.json.*JSON"):
        _ = open_reference(tmp_path / "a.json", "extract1d").json
    assert file_problem(tmp_path / "a.json")
    assert "No such file" in file_problem(tmp_path / "none.fits")


# ----------------------------------------------------------------------------------------------------------------------
# Real files


def test_every_real_reference_opens(real_data):
    paths = sorted([*(real_data / "refs").glob("*"), *(real_data / "crds_contexts" / "references").rglob("*.*")])
    paths = [path for path in paths if path.suffix in (".fits", ".asdf", ".json")]
    assert len(paths) > 50
    for path in paths:
        reference = open_reference(path, "any")
        assert file_problem(path) is None, path
        assert reference.meta, path
        if reference.kind == "asdf":
            assert len(reference.asdf) > 1, path
            continue
        for hdu in reference.layout.hdus:
            if hdu.kind == "image" and hdu.shape:
                assert reference.array(hdu.name, hdu.version).shape == hdu.shape
            elif hdu.kind == "table" and hdu.name != "ASDF":
                assert reference.table(hdu.name, hdu.version).shape == hdu.shape


@pytest.mark.parametrize(
    ("name", "model"),
    [("jwst_nirspec_dark_0046.fits", "DarkModel"), ("jwst_nirspec_superbias_0075.fits", "SuperBiasModel")],
)
def test_real_arrays_as_the_oracle(real_data, name, model):
    from stdatamodels.jwst import datamodels

    path = real_data / "refs" / name
    if not path.exists():
        pytest.skip(f"no {name}")
    reference = open_reference(path, "any")
    with getattr(datamodels, model)(str(path)) as theirs:
        np.testing.assert_array_equal(reference.array("sci"), theirs.data)
        np.testing.assert_array_equal(reference.dq, theirs.dq)
        assert reference.meta["meta.instrument.name"] == theirs.meta.instrument.name
        assert reference.meta["meta.subarray.xsize"] == theirs.meta.subarray.xsize


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32])
@pytest.mark.parametrize("definitions", [None, [(0, 1, "DO_NOT_USE"), (1, 2, "HOT"), (6, 64, "NON_SCIENCE")]])
def test_flags_are_the_dq_piece_by_piece(tmp_path, write_reference, dtype, definitions):
    """Read by pieces, of any stored type, with and without DQ_DEF, cut to a subarray or whole."""
    rng = np.random.default_rng(8)
    values = rng.integers(0, np.iinfo(dtype).max, (40, 30), dtype, endpoint=True)
    if np.iinfo(dtype).min < 0:
        values[rng.random(values.shape) < 0.1] = np.iinfo(dtype).min
    path = write_reference(
        tmp_path / "mask.fits", {"dq": values}, definitions, REFTYPE="MASK", SUBSTRT1=1, SUBSTRT2=1, SUBSIZE1=30,
        SUBSIZE2=40, FASTAXIS=-1, SLOWAXIS=2,
    )  # fmt: skip
    whole = open_reference(str(path), "mask")
    subarray = {"meta.subarray.xstart": 5, "meta.subarray.ystart": 11, "meta.subarray.xsize": 20}
    cut = whole.match(
        {**subarray, "meta.subarray.ysize": 16, "meta.subarray.fastaxis": -1, "meta.subarray.slowaxis": 2}
    )
    for reference in (whole, cut):
        assert reference.flags.shape == reference.dq.shape
        assert reference.flags[3:9, 2:7].dtype == np.uint32
        np.testing.assert_array_equal(np.asarray(reference.flags), reference.dq)
        np.testing.assert_array_equal(reference.flags[3:9, 2:7], reference.dq[3:9, 2:7])
        flags = np.full((6, 5), 1 << 20, np.uint32)
        add_flags(flags, reference.flags, (slice(3, 9), slice(2, 7)))
        np.testing.assert_array_equal(flags, reference.dq[3:9, 2:7] | 1 << 20)
    assert cut.dq.shape == (16, 20)
