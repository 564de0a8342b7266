"""A product read and written again is the product that `stdatamodels` wrote: cards, arrays, dtypes, HDUs, ASDF tree."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import pickle
import re
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import asdf
import numpy as np
import pytest
from astropy.io import fits
from stdatamodels.fits_support import fits_hash
from stdatamodels.jwst import datamodels

from jwstdask.core.errors import ProductError
from jwstdask.io.layout import open_layout
from jwstdask.io.metadata import model_name, nest, read_metadata, read_wcs
from jwstdask.io.product import MappedImages, Outflow, ProductWriter
from jwstdask.io.schema import model_schema
from tests.io.conftest import NX, NY, PRODUCTS, random_array, write_with_stdatamodels

CHANGING = ("DATE", "FILENAME")


def copy_product(source, target, **changes):
    """Everything that is in a file, written again."""
    layout = open_layout(source)
    images = [hdu for hdu in layout.hdus if hdu.kind == "image" and hdu.size and hdu.index]
    tables = [hdu for hdu in layout.hdus if hdu.kind == "table" and hdu.name != "ASDF"]
    with ProductWriter(
        target,
        model_name(layout),
        read_metadata(layout, complete=True),
        {(hdu.name, hdu.version): (hdu.shape, hdu.dtype) for hdu in images},
        {(hdu.name, hdu.version): layout.table(hdu.name, hdu.version) for hdu in tables},
        read_wcs(layout),
    ) as product:
        for hdu in images:
            product.write((hdu.name.lower(), hdu.version), layout.read(hdu.name, version=hdu.version))
        product.finish(**changes)
    return target


def cards(header: fits.Header) -> list[str]:
    text = header.tostring(endcard=False, padding=False)
    lines = [text[start : start + 80] for start in range(0, len(text), 80)]
    return [line for line in lines if line[:8].strip() not in CHANGING]


def asdf_text(hdus: fits.HDUList) -> list[str]:
    text = hdus["ASDF"].data.tobytes().split(b"\n...")[0].decode()
    # The library lists its extensions in the order of a set, ours are sorted.
    entries = re.findall(r"^  - !core/extension_metadata.*\n(?:    .*\n)*", text, re.MULTILINE)
    text = text.replace("".join(entries), "".join(sorted(entries)))
    return [line for line in text.splitlines() if not line.strip().startswith(("_fits_hash:", "date:", "filename:"))]


def assert_same_file(expected, actual, tree=True):
    with fits.open(expected) as first, fits.open(actual) as second:
        assert [(hdu.name, hdu.ver, type(hdu)) for hdu in second] == [(hdu.name, hdu.ver, type(hdu)) for hdu in first]
        for one, other in zip(first, second, strict=True):
            if one.name == "ASDF":
                continue
            assert cards(other.header) == cards(one.header), one.name
            if one.data is not None:
                assert other.data.dtype == one.data.dtype
                assert other.data.tobytes() == one.data.tobytes(), one.name
        if tree:
            assert asdf_text(second) == asdf_text(first)


@pytest.mark.parametrize("kind", PRODUCTS)
@pytest.mark.parametrize(("seed", "share"), [(1, 1.0), (2, 0.2)])
def test_round_trip(kind, seed, share, tmp_path, gwcs_object):
    wcs = gwcs_object if kind in ("cal", "i2d", "crf", "calints") else None
    original = write_with_stdatamodels(tmp_path / "original.fits", kind, seed, share, wcs)
    ours = copy_product(original, tmp_path / "ours.fits")
    assert_same_file(original, ours)


@pytest.mark.parametrize("kind", PRODUCTS)
def test_opens_and_validates_strictly_with_stdatamodels(kind, tmp_path, gwcs_object):
    wcs = gwcs_object if kind == "cal" else None
    original = write_with_stdatamodels(tmp_path / "original.fits", kind, 5, 0.5, wcs)
    ours = copy_product(original, tmp_path / "ours.fits")
    model = getattr(datamodels, PRODUCTS[kind][0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with model(str(ours), strict_validation=True, validate_arrays=True) as opened, model(str(original)) as expected:
            opened.validate()
            for name, value in expected.to_flat_dict(include_arrays=False).items():
                if name in ("meta.date", "meta.filename", "_fits_hash") or name.startswith(("meta.wcs", "history")):
                    continue
                np.testing.assert_equal(opened.to_flat_dict(include_arrays=False)[name], value, err_msg=name)
            for entry in model_schema(PRODUCTS[kind][0]).arrays.values():
                if entry.name in PRODUCTS[kind][1]:
                    np.testing.assert_array_equal(getattr(opened, entry.attribute), getattr(expected, entry.attribute))


def test_hash_lets_stdatamodels_trust_the_asdf_tree(tmp_path):
    """`stdatamodels` reads the keywords one by one unless the hash of the headers is right."""
    original = write_with_stdatamodels(tmp_path / "original.fits", "rate", 7)
    ours = copy_product(original, tmp_path / "ours.fits")
    with fits.open(ours) as hdus:
        tree = asdf.open(io.BytesIO(hdus["ASDF"].data)).tree
        assert tree["_fits_hash"] == fits_hash(hdus)


def test_wcs_survives(tmp_path, gwcs_object):
    original = write_with_stdatamodels(tmp_path / "original.fits", "cal", 7, 0.2, gwcs_object)
    ours = copy_product(original, tmp_path / "ours.fits")
    x, y = np.meshgrid(np.arange(NX), np.arange(NY))
    np.testing.assert_array_equal(read_wcs(open_layout(ours))(x, y), gwcs_object(x, y))
    with datamodels.open(str(ours)) as model:
        np.testing.assert_array_equal(model.meta.wcs(x, y), gwcs_object(x, y))


def test_changed_metadata_at_finish(tmp_path):
    original = write_with_stdatamodels(tmp_path / "original.fits", "rate", 8, 0.5)
    meta = {"meta.cal_step.jump": "COMPLETE", "meta.exposure.nframes": None, "meta.wcsinfo.ra_ref": 12.5}
    ours = copy_product(original, tmp_path / "ours.fits", meta=meta)
    with datamodels.open(str(ours)) as model:
        assert model.meta.cal_step.jump == "COMPLETE"
        assert model.meta.exposure.nframes is None
        assert model.meta.wcsinfo.ra_ref == 12.5
    assert "NFRAMES" not in fits.getheader(ours)


@pytest.mark.parametrize("count", [1, 40, 300])
def test_headers_that_grow_move_the_pixels(tmp_path, count):
    """Keywords that were not announced may need further header blocks: pixels already written stay right."""
    rng = np.random.default_rng(3)
    sci, dq = random_array(rng, (NY, NX), "float32"), random_array(rng, (NY, NX), "uint32")
    schema = model_schema("ImageModel")
    names = [name for name, entry in schema.keywords.items() if entry.type == "number"][:count]
    path = tmp_path / "jw_rate.fits"
    with ProductWriter(path, "ImageModel", {}, {"sci": (sci.shape, "float32"), "dq": (dq.shape, "uint32")}) as product:
        product.write("sci", sci)
        product.write("dq", dq)
        product.finish(dict.fromkeys(names, 1.5))
    layout = open_layout(path)
    np.testing.assert_array_equal(layout.read("sci"), sci)
    np.testing.assert_array_equal(layout.read("dq"), dq)
    meta = read_metadata(layout)
    assert all(meta[name] == 1.5 for name in names)
    assert os.listdir(tmp_path) == ["jw_rate.fits"]


def test_images_that_change_places_keep_their_pixels(tmp_path):
    """Of one size, so that no offset changes: a unit that becomes known at the end puts ERR before DQ."""
    sci, err, dq = np.full((NY, NX), 1, "f4"), np.full((NY, NX), 2, "f4"), np.full((NY, NX), 3, "u4")
    shapes = {"sci": (sci.shape, "float32"), "err": (err.shape, "float32"), "dq": (dq.shape, "uint32")}
    path = tmp_path / "jw_rate.fits"
    with ProductWriter(path, "ImageModel", {}, shapes) as product:
        before = list(product.handle.places)
        for name, values in (("sci", sci), ("err", err), ("dq", dq)):
            product.write(name, values)
        product.finish({"meta.bunit_err": "DN/s"})
    layout = open_layout(path)
    assert [(hdu.name.lower(), 1) for hdu in layout if hdu.kind == "image" and hdu.ndim] != before
    for name, values in (("sci", sci), ("err", err), ("dq", dq)):
        np.testing.assert_array_equal(layout.read(name), values)


def test_tables_and_wcs_given_at_finish(tmp_path, gwcs_object):
    entry = model_schema("CubeModel").arrays["int_times"]
    table = np.ones(3, entry.dtype)
    sci = np.arange(24, dtype="float32").reshape(2, 3, 4)
    with ProductWriter(tmp_path / "a.fits", "CubeModel", {}, {"sci": (sci.shape, "float32")}) as product:
        product.write("sci", sci)
        product.finish(tables={"int_times": table}, wcs=gwcs_object)
    with datamodels.CubeModel(str(tmp_path / "a.fits"), strict_validation=True) as model:
        np.testing.assert_array_equal(model.data, sci)
        assert len(model.int_times) == 3
        assert model.meta.wcs is not None


def test_numpy_and_time_values(tmp_path):
    from astropy.time import Time

    meta = {
        "meta.exposure.nframes": np.int32(4),
        "meta.exposure.group_time": np.float64(10.5),
        "meta.visit.tsovisit": np.bool_(True),
        "meta.observation.date_beg": Time("2026-01-02T03:04:05.678"),
        "meta.exposure.ngroups": 5.0,
    }
    with ProductWriter(tmp_path / "a.fits", "ImageModel", meta) as product:
        product.finish()
    found = read_metadata(open_layout(tmp_path / "a.fits"))
    assert found["meta.exposure.nframes"] == 4 and type(found["meta.exposure.nframes"]) is int
    assert found["meta.exposure.group_time"] == 10.5
    assert found["meta.visit.tsovisit"] is True
    assert found["meta.observation.date_beg"] == "2026-01-02 03:04:05.678"
    assert found["meta.exposure.ngroups"] == 5 and type(found["meta.exposure.ngroups"]) is int


def test_values_that_the_schema_forbids_are_left_out(tmp_path, caplog):
    meta = {
        "meta.exposure.type": "NOT_A_TYPE",
        "meta.exposure.nframes": "four",
        "meta.instrument.channel": "99",
        "meta.wcsinfo.ra_ref": float("nan"),
        "meta.program.pi_name": "Ørsted, Müller",
    }
    with ProductWriter(tmp_path / "a.fits", "ImageModel", meta) as product:
        product.finish()
    assert [word for word in ("EXP_TYPE", "NFRAMES", "CHANNEL") if word not in caplog.text] == []
    header = fits.getheader(tmp_path / "a.fits")
    assert not {"EXP_TYPE", "NFRAMES", "CHANNEL", "RA_REF"} & set(header)
    assert header["PI_NAME"] == "rsted, Muller"
    with datamodels.ImageModel(str(tmp_path / "a.fits"), strict_validation=True) as model:
        assert model.meta.exposure.type is None


def test_table_columns_follow_the_schema(tmp_path):
    """Columns in another order and of another type, as text from a file may come."""
    entry = model_schema("CubeModel").arrays["int_times"]
    names = list(entry.dtype.names)
    shuffled = np.zeros(2, [(name, "f4") for name in reversed(names)])
    shuffled["integration_number"] = [1, 2]
    shuffled["int_mid_MJD_UTC"] = [10.5, 11.5]
    with ProductWriter(tmp_path / "a.fits", "CubeModel", {}, {"sci": ((1, 2, 2), "float32")}, {"int_times": shuffled}):
        pass
    table = open_layout(tmp_path / "a.fits").table("int_times")
    assert table.dtype == entry.dtype
    assert table["integration_number"].tolist() == [1, 2]
    assert table["int_mid_MJD_UTC"].tolist() == [10.5, 11.5]


def test_old_and_foreign_columns(tmp_path):
    """A moving-target table from before its last two columns, with one that no data model knows."""
    entry = model_schema("Level1bModel").arrays["moving_target_position"]
    names = [name for name in entry.dtype.names if name not in ("mt_v2", "mt_v3")]
    old = np.zeros(2, [("mine", "f4"), *[(name, entry.dtype[name]) for name in names]])
    old["mt_sci_x"] = [3, 4]
    tables = {"moving_target_position": old}
    with ProductWriter(tmp_path / "a.fits", "Level1bModel", {}, {}, tables):
        pass
    table = open_layout(tmp_path / "a.fits").table("moving_target_position")
    assert table.dtype.names == entry.dtype.names
    assert table["mt_sci_x"].tolist() == [3, 4] and np.isnan(table["mt_v2"]).all()
    with datamodels.Level1bModel(str(tmp_path / "a.fits"), strict_validation=True) as model:
        assert model.moving_target["mt_sci_x"].tolist() == [3, 4]


def test_table_with_text_flags_and_units(tmp_path):
    dtype = np.dtype([("name", "U7"), ("good", bool), ("count", "u2"), ("vector", "f8", (3,))])
    dtype = np.dtype(dtype, metadata={"units": {"vector": "MJy/sr"}})
    table = np.array([("alpha", True, 65535, [1, 2, 3]), ("be", False, 0, [4, 5, 6])], dtype)
    with ProductWriter(tmp_path / "a.fits", "ImageModel", {}, {}, {"mine": table}):
        pass
    found = open_layout(tmp_path / "a.fits").table("mine")
    for name in dtype.names:
        np.testing.assert_array_equal(found[name], table[name])
        assert found.dtype[name] == dtype[name]
    assert found.dtype.metadata["units"] == {"vector": "MJy/sr"}
    with fits.open(tmp_path / "a.fits") as hdus:
        assert hdus["MINE"].data["name"].tolist() == ["alpha", "be"]
        assert hdus["MINE"].data["count"].tolist() == [65535, 0]


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
)
@pytest.mark.parametrize("shape", [(7,), (5, 4), (2, 5, 4), (2, 3, 5, 4)])
def test_every_dtype_and_dimension(dtype, shape, tmp_path):
    array = random_array(np.random.default_rng(0), shape, dtype)
    with ProductWriter(tmp_path / "a.fits", "ImageModel", {}, {"mine": (shape, dtype)}) as product:
        product.write("mine", array)
    with fits.open(tmp_path / "a.fits") as hdus:
        np.testing.assert_array_equal(hdus["MINE"].data, array)
    read = open_layout(tmp_path / "a.fits").read("mine")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", ["uint16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("rows", [None, slice(0, 11), slice(3, 8)])
def test_boxes_in_any_order(dtype, rows, seed, tmp_path, monkeypatch):
    """Random boxes of a cube, last writer wins: the same as assignment to an array; by calls or by mapped images.

    What nobody writes is zero bytes: half the range of unsigned integers.
    """
    monkeypatch.setattr("jwstdask.io.product._SOME_RUNS", 3)
    rng = np.random.default_rng(seed)
    shape = (3, 4, 11, 7)
    expected = np.full(shape, 0 if dtype[0] != "u" else np.iinfo(dtype).max // 2 + 1, dtype)
    images = MappedImages(rows)
    with ProductWriter(tmp_path / "a.fits", "Level1bModel", {}, {"mine": (shape, dtype)}) as product:
        for _ in range(40):
            edges = [np.sort(rng.integers(0, size + 1, 2)) for size in shape]
            box = tuple(slice(int(low), int(high)) for low, high in edges)
            values = random_array(rng, expected[box].shape, dtype)
            expected[box] = values
            product.handle.write("mine", values, box[2], box[:2], box[3], images=images)
    np.testing.assert_array_equal(open_layout(tmp_path / "a.fits").read("mine"), expected)


def test_another_try_does_not_undo_what_is_written(tmp_path, monkeypatch):
    """A worker that was taken for lost begins with rows that have been finished elsewhere."""
    monkeypatch.setattr("jwstdask.io.product._SOME_RUNS", 3)
    shape = (3, 4, 11, 7)
    array = random_array(np.random.default_rng(1), shape, "float32")
    with ProductWriter(tmp_path / "a.fits", "Level1bModel", {}, {"mine": (shape, "float32")}) as product:
        product.handle.write("mine", array)
        late = MappedImages(slice(0, 11), alone=False)
        product.handle.write("mine", array[..., :2], columns=slice(0, 2), images=late)
    np.testing.assert_array_equal(open_layout(tmp_path / "a.fits").read("mine"), array)


def test_what_is_finished_flows_to_the_disk(tmp_path, monkeypatch):
    """Each strip is sent when it is finished, and once more when the next one is; nothing of it is lost."""
    monkeypatch.setattr("jwstdask.io.product._SOME_RUNS", 3)
    shape, strips = (5, 12, 7), [slice(0, 4), slice(4, 8), slice(8, 12)]
    array = random_array(np.random.default_rng(2), shape, "float32")
    sent = []
    advise = os.posix_fadvise

    def noted(descriptor, first, size, advice):
        sent.append((first, size))
        advise(descriptor, first, size, advice)

    monkeypatch.setattr(os, "posix_fadvise", noted)
    with ProductWriter(tmp_path / "a.fits", "CubeModel", {}, {"sci": (shape, "float32")}) as product:
        outflow = Outflow([product.handle])
        for rows in strips:
            images = MappedImages(rows)
            for columns in (slice(0, 3), slice(3, 7)):
                product.handle.write("sci", array[:, rows, columns], rows, columns=columns, images=images)
            images.finish()
            outflow.finished(rows)
        offset = product.handle.places["sci", 1].offset
    expected = [(offset + (plane * 12 + 4 * strip) * 28, 4 * 28) for strip in (0, 1, 0, 2, 1) for plane in range(5)]
    assert sent == expected
    np.testing.assert_array_equal(open_layout(tmp_path / "a.fits").read("sci"), array)


def test_a_system_that_takes_no_advice(tmp_path, monkeypatch):
    """Nothing happens, and the product is as ever."""

    def refuse(*given):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    array = np.ones((2, 4, 8), np.float32)
    for advise in (refuse, None):
        if advise is None:
            monkeypatch.delattr(os, "posix_fadvise")
        else:
            monkeypatch.setattr(os, "posix_fadvise", advise)
        with ProductWriter(tmp_path / "a.fits", "CubeModel", {}, {"sci": (array.shape, "float32")}) as product:
            product.write("sci", array)
            Outflow([product.handle]).finished(slice(0, 4))
        np.testing.assert_array_equal(open_layout(tmp_path / "a.fits").read("sci"), array)


def test_big_arrays_are_written_in_pieces(tmp_path):
    """More elements than are converted at a time."""
    array = np.arange(3 * 700 * 1024, dtype="uint32").reshape(3, 700, 1024)
    with ProductWriter(tmp_path / "a.fits", "CubeModel", {}, {"dq": (array.shape, "uint32")}, sync=False) as product:
        product.write("dq", array)
    np.testing.assert_array_equal(open_layout(tmp_path / "a.fits").read("dq"), array)


def test_input_of_write_is_unchanged(tmp_path):
    array = np.arange(20, dtype="uint32").reshape(4, 5)
    with ProductWriter(tmp_path / "a.fits", "ImageModel", {}, {"dq": ((4, 5), "uint32")}) as product:
        product.write("dq", array)
    assert array.tolist() == np.arange(20).reshape(4, 5).tolist()


def test_threads_write_strips(tmp_path):
    rng = np.random.default_rng(4)
    sci, dq = random_array(rng, (2, 64, 16), "float32"), random_array(rng, (2, 64, 16), "uint32")
    arrays = {"sci": (sci.shape, "float32"), "dq": (dq.shape, "uint32")}
    barrier = threading.Barrier(4)
    with ProductWriter(tmp_path / "a.fits", "CubeModel", {}, arrays) as product:

        def strip(number):
            barrier.wait()
            for start in range(4 * number, 64, 16):
                rows = slice(start, start + 4)
                product.write("sci", sci[:, rows], rows)
                product.write("dq", dq[:, rows], rows)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(strip, range(4)))
    layout = open_layout(tmp_path / "a.fits")
    np.testing.assert_array_equal(layout.read("sci"), sci)
    np.testing.assert_array_equal(layout.read("dq"), dq)


def _write_rows(handle, start):
    handle.write("sci", np.full((3, 8, 5), start, "float32"), slice(start, start + 8))


def test_processes_write_strips(tmp_path):
    with ProductWriter(tmp_path / "a.fits", "CubeModel", {}, {"sci": ((3, 32, 5), "float32")}) as product:
        assert len(pickle.dumps(product.handle)) < 600
        with get_context("spawn").Pool(2) as pool:
            pool.starmap(_write_rows, [(product.handle, start) for start in range(0, 32, 8)])
    expected = np.repeat(np.arange(0, 32, 8), 8)[None, :, None] * np.ones((3, 1, 5))
    np.testing.assert_array_equal(open_layout(tmp_path / "a.fits").read("sci"), expected)


def test_final_name_appears_only_when_finished(tmp_path):
    path = tmp_path / "a.fits"
    product = ProductWriter(path, "ImageModel", {}, {"sci": ((4, 4), "float32")})
    assert not path.exists()
    hidden = os.listdir(tmp_path)
    assert len(hidden) == 1 and hidden[0].startswith(".a.fits.")
    product.write("sci", np.zeros((4, 4)))
    product.finish()
    assert os.listdir(tmp_path) == ["a.fits"]


def test_existing_product_is_replaced_at_the_end(tmp_path):
    path = tmp_path / "a.fits"
    path.write_text("old")
    product = ProductWriter(path, "ImageModel", {}, {"sci": ((4, 4), "float32")})
    product.write("sci", np.zeros((4, 4)))
    assert path.read_text() == "old"
    product.finish()
    assert path.read_bytes()[:6] == b"SIMPLE"


def test_an_interrupt_before_a_writer_is_handed_over_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*arguments):
        assert len(list(tmp_path.iterdir())) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr("jwstdask.io.product.ProductHandle", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ProductWriter(tmp_path / "x_rate.fits", "ImageModel", {}, {"sci": ((4, 4), "float32")})
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_abort_and_errors_leave_nothing(tmp_path):
    product = ProductWriter(tmp_path / "a.fits", "ImageModel", {}, {"sci": ((4, 4), "float32")})
    product.abort()
    assert os.listdir(tmp_path) == []
    with (
        pytest.raises(ZeroDivisionError),
        ProductWriter(tmp_path / "a.fits", "ImageModel", {}, {"sci": ((4, 4), "float32")}),
    ):
        1 / 0
    assert os.listdir(tmp_path) == []
    with pytest.raises(ProductError, match="metadata cannot be written"), ProductWriter(tmp_path / "a.fits") as product:
        product.finish({"meta.strange": object()})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"sci": ((4, 4), "float64")}, "sci is float64, ImageModel has float32"),
        ({"sci": ((2, 4, 4), "float32")}, "3 dimensions, ImageModel allows 2"),
        ({"mine": ((4, 4), "complex64")}, "FITS has no type for complex64"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, message):
    with pytest.raises(ProductError, match=message):
        ProductWriter(tmp_path / "a.fits", "ImageModel", {}, arrays)
    assert os.listdir(tmp_path) == []


def test_wrong_writes(tmp_path):
    with ProductWriter(tmp_path / "a.fits", "ImageModel", {}, {"sci": ((4, 5), "float32")}) as product:
        with pytest.raises(ProductError, match=r"shape \(4, 4\) where \(4, 5\)"):
            product.write("sci", np.zeros((4, 4)))
        with pytest.raises(ProductError, match=r"no array err .* It has sci"):
            product.write("err", np.zeros((4, 5)))
        with pytest.raises(ProductError, match="shape"):
            product.write("sci", np.zeros((4, 5)), slice(2, 9))
        product.write("sci", np.zeros((4, 5)))


def test_missing_folder(tmp_path):
    with pytest.raises(ProductError, match=r"there is no folder .*absent.* choose another output_dir"):
        ProductWriter(tmp_path / "absent" / "a.fits")


@contextlib.contextmanager
def small_file_system(folder, options):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"mounting is not permitted here: {made.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_full_disk(tmp_path):
    """On a 1 MB file system: a large product is refused before any work, one that fills up later leaves nothing."""
    with small_file_system(tmp_path / "small", "size=1m") as folder:
        with pytest.raises(ProductError, match=r"a\.fits: the disk is full.* Make room"):
            ProductWriter(folder / "a.fits", "ImageModel", {}, {"sci": ((1000, 1000), "float32")})
        assert os.listdir(folder) == []
        product = ProductWriter(folder / "a.fits", "ImageModel", {}, {"sci": ((400, 400), "float32")})
        (folder / "other").write_bytes(bytes((1 << 20) - (400 * 400 * 4 + 8 * 4096)))
        product.write("sci", np.zeros((400, 400)))
        with pytest.raises(ProductError, match="the disk is full"):
            product.finish({"cal_logs.calwebb_detector1": ["x" * 1000] * 400})
        assert os.listdir(folder) == ["other"]


def test_read_only_folder(tmp_path):
    with (
        small_file_system(tmp_path / "fixed", "ro") as folder,
        pytest.raises(ProductError, match=r"fixed is read-only.* Choose another output_dir"),
    ):
        ProductWriter(folder / "a.fits")


def test_several_slits(tmp_path, gwcs_object):
    """A MultiSlitModel: HDUs of each slit under its EXTVER, keywords and WCS of each."""
    rng = np.random.default_rng(9)
    model = datamodels.MultiSlitModel()
    for number in range(3):
        slit = datamodels.SlitModel()
        slit.data = random_array(rng, (5, 6 + number), "float32")
        slit.dq = random_array(rng, (5, 6 + number), "uint32")
        slit.name = f"S{number}"
        slit.xstart = number + 1
        slit.source_id = 10 + number
        slit.meta.wcs = gwcs_object
        model.slits.append(slit)
    model.meta.exposure.type = "NRS_FIXEDSLIT"
    original = tmp_path / "original.fits"
    model.save(str(original))
    layout = open_layout(original)
    slits = [read_metadata(layout, complete=True, version=version) for version in (1, 2, 3)]
    entries = [nest(slit) for slit in slits]
    for version, entry in enumerate(entries, 1):
        entry.setdefault("meta", {})["wcs"] = read_wcs(layout, version)
    meta = {**read_metadata(layout, complete=True), "slits": entries}
    images = [hdu for hdu in layout.hdus if hdu.size]
    arrays = {(hdu.name, hdu.version): (hdu.shape, hdu.dtype) for hdu in images if hdu.kind == "image"}
    with ProductWriter(tmp_path / "ours.fits", "MultiSlitModel", meta, arrays) as product:
        for name, version in arrays:
            product.write((name.lower(), version), layout.read(name, version=version))
    # `stdatamodels` writes each entry of the list as if it were an ASDF file of its own: another text, the same tree.
    assert_same_file(original, tmp_path / "ours.fits", tree=False)
    with datamodels.MultiSlitModel(str(tmp_path / "ours.fits"), strict_validation=True) as opened:
        for number, slit in enumerate(opened.slits):
            assert (slit.name, slit.xstart, slit.source_id) == (f"S{number}", number + 1, 10 + number)
            np.testing.assert_array_equal(slit.data, model.slits[number].data)
            assert slit.meta.wcs(1, 2) == gwcs_object(1, 2)


def test_import_is_light():
    """Writing products must not import the data models, whose start costs most of a second."""
    code = "import sys, jwstdask.io.product; print({'stdatamodels', 'asdf', 'gwcs'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
