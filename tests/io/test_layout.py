"""Headers read lightly, pixels by position: the same as astropy reads, from disk, object store and web server."""

from __future__ import annotations

import functools
import http.server
import pickle
import threading

import fsspec
import numpy as np
import pytest
from astropy.io import fits

from jwstdask.core.errors import InputError
from jwstdask.io.header import Header, card_text, is_structural, title_text
from jwstdask.io.layout import open_layout
from tests.io.conftest import NX, NY, random_array, write_with_stdatamodels
from tests.using import is_mapped


def assert_reads_like_astropy(layout, path):
    with fits.open(path) as hdus:
        assert len(layout.hdus) == len(hdus)
        for ours, theirs in zip(layout.hdus, hdus, strict=True):
            assert (ours.name, ours.version) == (theirs.name, theirs.ver)
            header = layout.header_of(ours)
            assert header.text == theirs.header.tostring(endcard=False, padding=False)
            for (keyword, value, comment), card in zip(header.cards, theirs.header.cards, strict=True):
                assert (keyword, comment) == (card.keyword, card.comment)
                assert value == card.value and type(value) is type(card.value)
            if theirs.data is None:
                assert ours.size == 0
            elif ours.kind == "image":
                pixels = layout.read(ours.name, version=ours.version)
                assert pixels.dtype == ours.dtype == theirs.data.dtype.newbyteorder("=") and pixels.dtype.isnative
                np.testing.assert_array_equal(pixels, theirs.data)
            elif ours.name != "ASDF":
                table = layout.table(ours.name, ours.version)
                for name in table.dtype.names:
                    np.testing.assert_array_equal(table[name], theirs.data[name])


@pytest.mark.parametrize("kind", ["uncal", "ramp", "rate", "calints", "i2d", "fitopt"])
def test_same_as_astropy(kind, tmp_path):
    path = write_with_stdatamodels(tmp_path / "a.fits", kind, 11, 0.5)
    assert_reads_like_astropy(open_layout(path), path)


def test_real_files(real_products):
    paths = sorted(real_products.glob("*.fits"))
    assert paths
    for path in paths:
        assert_reads_like_astropy(open_layout(path), path)


@pytest.fixture
def cube(tmp_path):
    """A file with a 4-D uint16 image, a 3-D float image and a 2-D uint32 one."""
    rng = np.random.default_rng(1)
    images = {
        "SCI": random_array(rng, (3, 4, 17, 10), "uint16"),
        "ERR": random_array(rng, (3, 17, 10), "float32"),
        "DQ": random_array(rng, (17, 10), "uint32"),
    }
    path = tmp_path / "cube.fits"
    fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(data, name=name) for name, data in images.items())]).writeto(path)
    return path, images


@pytest.mark.parametrize("seed", range(8))
def test_random_boxes(cube, seed):
    path, images = cube
    rng = np.random.default_rng(seed)
    layout = open_layout(path)
    for name, image in images.items():
        for _ in range(10):
            edges = [np.sort(rng.integers(0, size + 1, 2)) for size in image.shape]
            box = tuple(slice(int(low), int(high)) for low, high in edges)
            found = layout.read(name, box[-2], box[-1], leading=box[:-2])
            np.testing.assert_array_equal(found, image[box])


def test_negative_and_open_slices(cube):
    path, images = cube
    layout = open_layout(path)
    np.testing.assert_array_equal(layout.read("sci", slice(-3, None), slice(None, -2)), images["SCI"][..., -3:, :-2])
    assert layout.read("sci", slice(5, 5)).shape == (3, 4, 0, 10)
    with pytest.raises(ValueError, match="steps"):
        layout.read("sci", slice(None, None, 2))


def test_out_is_filled(cube):
    path, images = cube
    layout = open_layout(path)
    out = np.zeros((3, 4, 5, 10), "uint16")
    assert layout.read("sci", slice(2, 7), out=out) is out
    np.testing.assert_array_equal(out, images["SCI"][:, :, 2:7])
    with pytest.raises(ValueError, match="C-contiguous uint16"):
        layout.read("sci", slice(2, 7), out=np.zeros((3, 4, 5, 10), "float32"))


def test_raw_is_a_big_endian_map(cube):
    path, images = cube
    raw = open_layout(path).raw("sci")
    assert is_mapped(raw) and raw.dtype == ">i2" and not raw.flags.writeable
    np.testing.assert_array_equal((raw.astype(int) + 32768).astype("uint16"), images["SCI"])


@pytest.mark.parametrize(
    ("stored", "bzero", "bscale", "dtype"),
    [
        ("i2", 0, 0.5, "float32"),
        ("i2", 10.5, 2.0, "float32"),
        ("i4", 100, 1.0, "float64"),
        ("f4", 0, 2.0, "float32"),
        ("u1", 0, 3, "float32"),
    ],
)
def test_scaled_values(tmp_path, stored, bzero, bscale, dtype):
    """BSCALE and BZERO that are not the mark of unsigned integers (FITS 4.0, equation 3)."""
    values = np.arange(-60, 60).astype(stored).reshape(10, 12)
    hdu = fits.ImageHDU(values, name="SCI")
    hdu.header["BZERO"], hdu.header["BSCALE"] = bzero, bscale
    header, data = hdu.header.tostring(), values.astype(np.dtype(stored).newbyteorder(">")).tobytes()
    (tmp_path / "a.fits").write_bytes(
        fits.PrimaryHDU().header.tostring().encode() + header.encode() + data + bytes(-len(data) % 2880)
    )
    found = open_layout(tmp_path / "a.fits").read("SCI")
    assert found.dtype == dtype
    # All these products and sums are exact in the type of the result.
    np.testing.assert_array_equal(found, values.astype(float) * bscale + bzero)


def test_pickle_is_small_and_complete(tmp_path):
    path = write_with_stdatamodels(tmp_path / "a.fits", "calints", 2)
    layout = open_layout(path)
    copy = pickle.loads(pickle.dumps(layout))
    assert len(pickle.dumps(layout)) < 4000 < len(layout.header().text)
    assert copy.header().text == layout.header().text
    np.testing.assert_array_equal(copy.read("sci"), layout.read("sci"))


def test_threads_read(cube):
    path, images = cube
    layout = open_layout(path)
    found = {}

    def read(row):
        found[row] = layout.read("sci", slice(row, row + 1))

    threads = [threading.Thread(target=read, args=(row,)) for row in range(17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.concatenate([found[row] for row in range(17)], axis=2), images["SCI"])


def test_memory_file_system(cube):
    path, images = cube
    with fsspec.open("memory://layout/cube.fits", "wb") as stream:
        stream.write(path.read_bytes())
    layout = open_layout("memory://layout/cube.fits")
    np.testing.assert_array_equal(layout.read("sci", slice(2, 9), slice(1, 4)), images["SCI"][..., 2:9, 1:4])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(layout)).read("dq"), images["DQ"])
    with pytest.raises(InputError, match="memory-mapped"):
        layout.raw("sci")
    with pytest.raises(InputError, match="no such file"):
        open_layout("memory://layout/absent.fits")


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """A web server that knows byte ranges and counts the bytes it sends."""

    sent: list[int]

    def do_GET(self):
        with open(self.translate_path(self.path), "rb") as stream:
            data = stream.read()
        start, stop = 0, len(data)
        if "Range" in self.headers:
            low, _, high = self.headers["Range"].removeprefix("bytes=").partition("-")
            start, stop = int(low), min(int(high) + 1, len(data)) if high else len(data)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(data[start:stop])
        self.sent.append(stop - start)

    def log_message(self, *args):
        pass


def test_web_server_sends_only_what_is_needed(tmp_path):
    pytest.importorskip("aiohttp", reason="reading over http needs aiohttp")
    image = np.arange(2000 * 100, dtype="float32").reshape(2000, 100)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image, name="SCI"), fits.ImageHDU(image, name="ERR")]).writeto(
        tmp_path / "a.fits"
    )
    handler = type("Handler", (_Ranges,), {"sent": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        layout = open_layout(f"http://127.0.0.1:{server.server_port}/a.fits")
        np.testing.assert_array_equal(layout.read("err", slice(50, 60)), image[50:60])
    finally:
        server.shutdown()
        server.server_close()
    # A dozen blocks for the first header, two for each of the others, and the strip; the file has 1.6 MB.
    assert sum(handler.sent) < 17 * 2880 + 10 * 400


def test_truncated_file(tmp_path):
    whole = write_with_stdatamodels(tmp_path / "whole.fits", "rate", 3, 0.1).read_bytes()
    layout = open_layout(tmp_path / "whole.fits")
    science = layout.hdu("SCI")
    broken = tmp_path / "broken.fits"
    for size in (science.data_offset + 10, science.data_offset - 2880 - 7, len(whole) - 2880):
        broken.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"broken\.fits: the file is truncated.*Download"):
            open_layout(broken)


def test_file_that_shrinks_after_it_was_opened(cube):
    path, _ = cube
    layout = open_layout(path)
    path.write_bytes(path.read_bytes()[: layout.hdu("ERR").data_offset])
    with pytest.raises(InputError, match="truncated"):
        layout.read("err")


def test_missing_padding_is_tolerated(cube):
    path, images = cube
    layout = open_layout(path)
    last = layout.hdus[-1]
    path.write_bytes(path.read_bytes()[: last.data_offset + last.data_size])
    np.testing.assert_array_equal(open_layout(path).read("dq"), images["DQ"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"#ASDF 1.0.0\n" * 1000, "not a FITS file"),
        (b"\x1f\x8b" + bytes(5000), "not a FITS file .it is compressed.*Decompress"),
        (b"SIMPLE  =" + b" " * 71, "truncated"),
        (b"SIMPLE  =" + b" " * 71 + b"END" + b" " * 2797, "broken header"),
    ],
)
def test_not_fits(tmp_path, content, message):
    path = tmp_path / "a.fits"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_layout(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_layout(tmp_path / "absent.fits")
    with pytest.raises(InputError):
        open_layout(tmp_path)


def test_missing_hdu_and_wrong_kind(tmp_path):
    layout = open_layout(write_with_stdatamodels(tmp_path / "a.fits", "rateints", 3, 0.1))
    with pytest.raises(InputError, match=r"no HDU PIXELDQ.*The file has PRIMARY, SCI"):
        layout.read("pixeldq")
    with pytest.raises(InputError, match="EXTVER 2"):
        layout.read("sci", version=2)
    with pytest.raises(InputError, match="holds no image"):
        layout.read("int_times")
    with pytest.raises(InputError, match="not a table"):
        layout.table("sci")


def test_check_exposure(tmp_path):
    def write(**images):
        fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(data, name=name) for name, data in images.items())]).writeto(
            tmp_path / "a.fits", overwrite=True
        )
        return open_layout(tmp_path / "a.fits")

    image = np.zeros((NY, NX), "f4")
    assert write(SCI=image, ERR=image).check_exposure().shape == (NY, NX)
    with pytest.raises(InputError, match="no HDU SCI"):
        write(ERR=image).check_exposure()
    with pytest.raises(InputError, match="SCI has no pixels"):
        write(SCI=None).check_exposure()
    with pytest.raises(InputError, match=f"DQ has {NX} rows and {NY} columns where SCI has {NY} and {NX}"):
        write(SCI=image, DQ=image.T).check_exposure()


@pytest.mark.parametrize(
    ("keyword", "value", "comment"),
    [
        ("A", 1, "an integer"),
        ("A", -(2**70), ""),
        ("A", True, "yes"),
        ("A", 1.5, ""),
        ("A", -0.0, "zero"),
        ("A", 1e20, "no point"),
        ("A", 1e16, ""),
        ("A", 123456.7, "a float"),
        ("A", -1.23456789012345e-05, "twenty characters"),
        ("A", 0.1 + 0.2, "nineteen"),
        ("A", -2.2250738585072014e-308, "too long"),
        ("A", 1.5, "c" * 60),
        ("A", 1.2345678901234567e-300, "small"),
        ("A", "", "nothing"),
        ("A", "it's", "quote"),
        ("A", "x", "c" * 100),
        ("A", "long " * 40 + "end", "goes on"),
        ("A", "ends in &", ""),
        ("EXTRA-LONG", 5, "hierarch"),
        ("A", "a/b", "slash / in comment"),
    ],
)
def test_cards(keyword, value, comment):
    """Text as astropy writes it, and read back as astropy reads it."""
    card = fits.Card(keyword if len(keyword) <= 8 else f"HIERARCH {keyword}", value, comment)
    with pytest.warns() if len(comment) > 90 else _nothing():
        expected = str(card)
    text = card_text(keyword if len(keyword) <= 8 else f"HIERARCH {keyword}", value, comment)
    assert text == expected
    [(found, read, remark)] = Header(text).cards
    theirs = fits.Card.fromstring(expected)
    assert (found, read, remark) == (theirs.keyword, theirs.value, theirs.comment)
    if isinstance(value, str):
        assert read == value.rstrip()


def _nothing():
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "two\nlines"])
def test_values_that_no_card_holds(value):
    with pytest.raises(ValueError, match=r"."):
        card_text("A", value)


def test_titles_and_broken_cards():
    assert len(title_text("A section")) == 240
    lines = ["A       = 1.5D3", "B       = what is this", "C       =", "D", "HISTORY one", "HISTORY two"]
    text = "".join(f"{line:80}" for line in lines)
    header = Header(text)
    assert (header["A"], header["B"], header.get("C"), header.get("E", 7)) == (1500.0, "what is this", None, 7)
    assert header.commentary("HISTORY") == ["one", "two"]
    assert "D" in header
    assert Header(text[:80]).astropy()["A"] == 1500.0


@pytest.mark.parametrize("seed", [1, 2])
def test_structure_is_what_all_values_say(seed):
    """Of cards in any order, with values of any kind and some keywords twice."""
    rng = np.random.default_rng(seed)
    names = [
        "NAXIS",
        "NAXIS1",
        "BITPIX",
        "BZERO",
        "TFORM12",
        "TTYPE1",
        "TDIM3",
        "EXTNAME",
        "EXTVER",
        "XTENSION",
        "GCOUNT",
    ]
    names += ["TELESCOP", "BEXTRA", "NGROUPS", "PCOUNT", "TFIELDS", "SUBARRAY", "EXPTIME", "NAXISX", "TFORM"]
    values = ["3", "-32", "32768.5", "'(3,4)   '", "'a / b' / with a comment", "T", "1.0D3 / tera", "'it''s'"]
    cards = [f"{name:8}= {rng.choice(values)}".ljust(80) for name in [*rng.choice(names, 40), "NGROUPS"]]
    cards.insert(int(rng.integers(40)), "HISTORY NAXIS   = 7".ljust(80))
    found = Header("".join(cards)).structure
    whole = Header("".join(cards)).values
    assert found == {name: value for name, value in whole.items() if is_structural(name)}
    assert "NGROUPS" in whole and "NGROUPS" not in found
    long = [*cards, "TTYPE9  = 'half &'".ljust(80), "CONTINUE  'a name'".ljust(80)]
    assert Header("".join(long)).structure["TTYPE9"] == "half a name"
