"""Digests of files: the same content has the same, whenever it was written; any other change is seen."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from astropy.io import fits

from jwstdask.program.content import CHUNK, combined, digest_of, parts, stamp


def _product(path, date="2026-01-01T00:00:00.000", **changes):
    primary = fits.PrimaryHDU()
    primary.header["DATE"] = date
    primary.header["TARGNAME"] = changes.get("target", "M 31")
    science = fits.ImageHDU(np.full((300, 40), changes.get("value", 1.5), np.float32), name="SCI")
    checksum, n = changes.get("hash", "a" * 64), changes.get("n", 1)
    text = f"#ASDF 1.0.0\n_fits_hash: {checksum}\nmeta:\n  date: '{date}'\n  n: {n}\n"
    asdf = fits.BinTableHDU.from_columns([fits.Column("ASDF_METADATA", f"{len(text)}B", array=[list(text.encode())])])
    asdf.name = "ASDF"
    columns = [
        fits.Column("DATE", "23A", array=[date]),
        fits.Column("DATE-BEG", "23A", array=[changes.get("begin", "2025-01-01T00:00:00.000")]),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="HDRTAB")
    fits.HDUList([primary, science, table, asdf]).writeto(path, overwrite=True)
    return parts(str(path))


def test_time_of_writing_does_not_count(tmp_path):
    first = _product(tmp_path / "a.fits")
    assert set(first) == {"header", "SCI", "HDRTAB", "ASDF"}
    assert _product(tmp_path / "b.fits", "2027-02-03T11:22:33.444", hash="b" * 64) == first


@pytest.mark.parametrize(
    ("part", "change"),
    [("header", {"target": "M 33"}), ("SCI", {"value": 1.6}), ("ASDF", {"n": 2}), ("HDRTAB", {"begin": "2024"})],
)
def test_all_else_counts(tmp_path, part, change):
    first, second = _product(tmp_path / "a.fits"), _product(tmp_path / "b.fits", **change)
    assert [name for name in first if first[name] != second[name]] == [part]
    assert combined(first) != combined(second)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 77])
def test_files_that_are_no_fits(tmp_path, size):
    """The digest does not depend on how the file is read; each byte, and how many there are, count."""
    data = np.random.default_rng(size).bytes(size)
    path = tmp_path / "file.asdf"
    path.write_bytes(data)
    found = parts(str(path))["file"]
    assert found == digest_of(iter([memoryview(data)]))
    for other in (data + b"\0", data[:-1], bytes([data[0] ^ 1]) + data[1:] if data else b"1"):
        if other != data:
            path.write_bytes(other)
            assert parts(str(path))["file"] != found


def test_half_a_fits_file_has_a_digest(tmp_path):
    _product(tmp_path / "a.fits")
    data = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "b.fits").write_bytes(data[: len(data) // 2])
    assert set(parts(str(tmp_path / "b.fits"))) == {"file"}


def test_stamp(tmp_path):
    _product(tmp_path / "a.fits")
    shutil.copy(tmp_path / "a.fits", tmp_path / "b.fits")
    first, second = stamp(str(tmp_path / "a.fits")), stamp(str(tmp_path / "b.fits"))
    assert first.digest == second.digest and first.size == second.size
    assert first.mtime == (tmp_path / "a.fits").stat().st_mtime_ns


def test_catalogue(tmp_path):
    text = "# %ECSV 1.0\n# meta: !!omap\n# - {date: '2026-11-21 10:49:35 UTC'}\nx\n1.0\n"
    (tmp_path / "a_cat.ecsv").write_text(text)
    first = parts(str(tmp_path / "a_cat.ecsv"))
    (tmp_path / "a_cat.ecsv").write_text(text.replace("10:49", "12:00"))
    assert parts(str(tmp_path / "a_cat.ecsv")) == first
    (tmp_path / "a_cat.ecsv").write_text(text.replace("1.0\n", "1.1\n"))
    assert parts(str(tmp_path / "a_cat.ecsv")) != first
