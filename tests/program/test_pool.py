"""Pools: read and made from headers as jwst does; associations from lists of files."""

from __future__ import annotations

import json

import pytest
from astropy.io import fits

from jwstdask.core.errors import InputError, ParameterError, ProductError
from jwstdask.program.generation.from_list import association_from_list
from jwstdask.program.pool import candidates_of, pool_from_headers, read_pool, renamed, write_pool
from tests.program.pools import COLUMNS, random_pool, write


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("# a comment\nFILENAME|EXP_TYPE|FILTER\n\nA_uncal.fits|NRC_IMAGE|F200W\n  # another\nb|| N/A \n", "|"),
        # jwst cuts the "null" of an empty cell to the width of its column, hence the wide one
        ('filename,exp_type,filter\n"a,b",NIS_WFSS,F200W\nc,x,""\nd,y,--\n', ","),
    ],
    ids=["pool", "comma"],
)
def test_read_as_jwst(tmp_path, text, delimiter):
    from jwst.associations import AssociationPool

    path = tmp_path / "a_pool.csv"
    path.write_text(text)
    theirs = AssociationPool.read(path, delimiter=delimiter)
    ours = read_pool(path, delimiter)
    assert ours.name == "a_pool.csv"
    assert [row.values for row in ours] == [dict(zip(theirs.colnames, map(str, row), strict=True)) for row in theirs]


def test_other_formats_are_read(tmp_path):
    rows = random_pool(3)
    plain = read_pool(write(rows, tmp_path / "plain.csv"))
    from jwst.associations import AssociationPool

    AssociationPool.read(str(tmp_path / "plain.csv")).write(tmp_path / "pool.ecsv", format="ascii.ecsv", delimiter=",")
    other = read_pool(tmp_path / "pool.ecsv", ",", "ascii.ecsv")
    assert [row.values for row in other] == [row.values for row in plain]


@pytest.mark.parametrize(
    ("text", "message"),
    [("# nothing\n", "empty"), ("filename,exp_type\na,b\n", "--delimiter"), ("a|b\n1|2\n1|2|3\n", "exposure 2")],
)
def test_bad_pools(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_pool(path)


def test_missing_pool(tmp_path):
    with pytest.raises(InputError, match="cannot be read as a pool"):
        read_pool(tmp_path / "none.csv")


def test_written_pools_are_read_again(tmp_path):
    pool = read_pool(write(random_pool(5), tmp_path / "one.csv"))
    write_pool([row.values for row in pool], tmp_path / "two.csv")
    assert [row.values for row in read_pool(tmp_path / "two.csv")] == [row.values for row in pool]
    write_pool([], tmp_path / "none.csv", columns=pool.columns)
    assert (tmp_path / "none.csv").read_text() == "|".join(COLUMNS) + "\n"
    with pytest.raises(ProductError, match="cannot be written"):
        write_pool([], tmp_path / "no folder" / "pool.csv")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[('o001', 'observation'), ('c1000', 'mosaic')]", (("o001", "observation"), ("c1000", "mosaic"))),
        ("1001", (("1001", "unknown"),)),
        ("null", ()),
        ("[('o001',", ()),
        (None, ()),
    ],
)
def test_candidates(text, found):
    assert candidates_of(text) == found


def test_renamed():
    assert renamed("a_uncal.fits", "rate") == "a_rate.fits"
    assert renamed("a_rate.fits", "cal") == "a_rate.fits"


@pytest.fixture
def exposures(tmp_path):
    """Headers of three exposures of two targets."""
    paths = []
    for number, target in enumerate(("M 42", "NGC 1", "M 42")):
        header = fits.Header([("OBSERVTN", f"00{number + 1}"), ("TARGNAME", target), ("EXP_TYPE", "NRC_IMAGE")])
        header["BKGDTARG"] = bool(number)
        header["DITHPTIN"] = 7
        header["NINTS"] = number
        header["EFFEXPTM"] = 1.5 * number
        if number == 2:
            header["PUPIL"] = "CLEAR"
        header["HISTORY"] = "made"
        paths.append(str(tmp_path / f"Exposure{number}_uncal.fits"))
        fits.PrimaryHDU(header=header).writeto(paths[-1])
    return paths


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"asn_candidate": "[('c1000', 'mosaic')]", "dms_note": "wfsc_los_jitter", "is_imprt": "t"},
        {"asn_candidate": [("c1001", "background")], "pntgtype": "target_acquisition"},
    ],
)
def test_pool_from_headers(exposures, options, tmp_path):
    from jwst.associations import AssociationPool
    from jwst.associations.mkpool import mkpool

    theirs = mkpool(exposures, **options)
    rows = pool_from_headers(exposures, **options)
    assert rows == [dict(zip(theirs.colnames, map(str, row), strict=True)) for row in theirs]
    write_pool(rows, tmp_path / "ours.csv")
    theirs.write(tmp_path / "theirs.csv")
    one, two = (AssociationPool.read(tmp_path / f"{who}.csv") for who in ("ours", "theirs"))
    assert [tuple(row) for row in one] == [tuple(row) for row in two]


def test_pool_from_what_is_no_exposure(tmp_path, exposures):
    with pytest.raises(InputError, match="not a FITS file"):
        pool_from_headers([*exposures, str(write(random_pool(1), tmp_path / "pool.csv"))])
    fits.delval(exposures[1], "OBSERVTN")
    with pytest.raises(InputError, match=r"Exposure1_uncal\.fits.*OBSERVTN"):
        pool_from_headers(exposures)


def jwst_list(tmp_path, *arguments):
    """What asn_from_list of jwst writes, None if it refuses."""
    from jwst.associations.asn_from_list import Main
    from jwst.associations.exceptions import AssociationError

    try:
        Main.cli(["-o", str(tmp_path / "theirs.json"), *arguments])
    except (AssociationError, ValueError):
        return None
    return json.loads((tmp_path / "theirs.json").read_text())


@pytest.mark.filterwarnings("ignore:Input association file contains path information")
@pytest.mark.parametrize("acid", ["o999", "c1000", "x1"])
@pytest.mark.parametrize("product_name", ["a_product", None])
@pytest.mark.parametrize(
    "rule",
    "DMS_Level3_Base DMSLevel2bBase Asn_Lv3Image Asn_Lv3NRCCoron Asn_Lv3TSO Asn_Lv3WFSCMB Asn_Lv3ImageMosaic "
    "Asn_Lv2Image Asn_Lv2WFSSParallel Asn_Lv2SpecTSO".split(),
)
def test_from_list(tmp_path, rule, product_name, acid):
    files = ["a_rate.fits", "folder/b_rateints.fits"]
    named = ["--product-name", product_name] if product_name else []
    theirs = jwst_list(tmp_path, "-r", rule, "-i", acid, *named, *files)
    if theirs is None:
        with pytest.raises(ParameterError):
            association_from_list(files, rule, product_name, acid)
    else:
        assert association_from_list(files, rule, product_name, acid) == theirs


def test_from_list_unknown_rule():
    with pytest.raises(ParameterError, match="Asn_Lv3Image"):
        association_from_list(["a"], "Asn_Lv3Imag", "p")
