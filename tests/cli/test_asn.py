"""``jwstdask asn`` beside jwst's own commands."""

from __future__ import annotations

import json

import pytest
from astropy.io import fits

from jwstdask.cli.main import main
from jwstdask.program.pool import read_pool
from tests.program.pools import comparable, jwst_associations, random_pool, write


@pytest.fixture
def pool(tmp_path):
    """Fixed slits with nods, a background candidate, and rows in no association."""
    return write(random_pool(5, "fixed slit", exposures=10), tmp_path / "jw00001_20260101t000000_pool.csv")


@pytest.mark.parametrize("options", [(), ("--merge",), ("--version-id", "v1"), ("-i", "o001", "o002")])
def test_generate_writes_the_files_of_jwst(pool, tmp_path, options, capsys):
    folder = tmp_path / "associations"
    folder.mkdir()
    assert main(["asn", "generate", str(pool), "-p", str(folder), *options]) == 0
    written = {path.stem: json.loads(path.read_text()) for path in folder.iterdir()}
    theirs = jwst_associations(pool, *options)
    assert theirs
    assert {name: comparable(tree) for name, tree in written.items()} == theirs
    assert f"{len(theirs)} associations of 10 exposures" in capsys.readouterr().out
    assert all(isinstance(tree["constraints"], str) for tree in written.values())


def test_written_associations_are_read_by_jwst(pool, tmp_path):
    from jwst.associations import load_asn

    assert main(["asn", "generate", str(pool), "-p", str(tmp_path)]) == 0
    files = sorted(tmp_path.glob("*_asn.json"))
    assert files
    for path in files:
        with path.open() as stream:
            assert load_asn(stream)["products"]


def test_version_id_without_value_is_the_time(pool, tmp_path):
    assert main(["asn", "generate", str(pool), "-p", str(tmp_path), "--version-id"]) == 0
    files = sorted(tmp_path.glob("*_asn.json"))
    (version,) = {json.loads(path.read_text())["version_id"] for path in files}
    assert len(version) == 15 and version[8] == "t"
    assert all(f"_{version}_" in path.name for path in files)


def test_nothing_is_written_in_a_dry_run(pool, tmp_path, capsys):
    before = sorted(tmp_path.iterdir())
    assert main(["asn", "generate", str(pool), "-p", str(tmp_path), "--dry-run", "-v", "--save-orphans"]) == 0
    assert sorted(tmp_path.iterdir()) == before
    assert "candidate_Asn_Lv2NRSFSS" in capsys.readouterr().out


def test_orphans(pool, tmp_path):
    assert main(["asn", "generate", str(pool), "-p", str(tmp_path), "--save-orphans", "left.csv"]) == 0
    everything = {row.filename for row in read_pool(pool)}
    left = {row.filename for row in read_pool(tmp_path / "left.csv")}
    text = "".join(path.read_text() for path in tmp_path.glob("*_asn.json"))
    assert left == {name for name in everything if name.removesuffix("uncal.fits") not in text}
    assert left and left < everything


def test_unknown_candidate(pool, tmp_path, capsys):
    assert main(["asn", "generate", str(pool), "-p", str(tmp_path), "-i", "o999"]) == 0
    printed = capsys.readouterr()
    assert "no candidate o999" in printed.err
    assert printed.out.startswith("0 associations")


@pytest.mark.parametrize("option", [("--rules", "my.py"), ("--ignore-default",), ("--per-pool-algorithm",)])
def test_what_needs_jwst_itself_is_refused(pool, option, capsys):
    assert main(["asn", "generate", str(pool), *option]) == 2
    assert f"{option[0]} is not offered" in capsys.readouterr().err


def test_pool_without_candidates(tmp_path, capsys):
    (tmp_path / "pool.csv").write_text("filename|exp_type\na|b\n")
    assert main(["asn", "generate", str(tmp_path / "pool.csv")]) == 2
    assert "asn_candidate" in capsys.readouterr().err


def test_folder_that_does_not_exist(pool, tmp_path, capsys):
    assert main(["asn", "generate", str(pool), "-p", str(tmp_path / "none")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_pool_and_list(tmp_path, capsys):
    exposure = tmp_path / "a_uncal.fits"
    header = fits.Header([("OBSERVTN", "001"), ("TARGNAME", "M 42")])
    fits.PrimaryHDU(header=header).writeto(exposure)
    pool = tmp_path / "pool.csv"
    assert main(["asn", "pool", str(pool), str(exposure), "--asn-candidate", "[('c1000', 'mosaic')]", "-v"]) == 0
    assert "1 exposures" in capsys.readouterr().out
    assert read_pool(pool).rows[0].values["asn_candidate"] == "[('o001', 'observation'), ('c1000', 'mosaic')]"
    target = tmp_path / "list_asn.json"
    assert main(["asn", "from-list", "-o", str(target), "--product-name", "mosaic", "a_cal.fits", "b_cal.fits"]) == 0
    products = json.loads(target.read_text())["products"]
    assert [(product["name"], len(product["members"])) for product in products] == [("mosaic", 2)]
    assert main(["asn", "from-list", "-o", str(target), "a_cal.fits"]) == 2
    assert "--product-name" in capsys.readouterr().err


def test_targets_out_of_order(tmp_path, capsys):
    paths = []
    for number, target in enumerate(("M 42", "NGC 1", "M 42")):
        paths.append(str(tmp_path / f"{number}_uncal.fits"))
        header = fits.Header([("OBSERVTN", "001"), ("TARGNAME", target)])
        fits.PrimaryHDU(header=header).writeto(paths[-1])
    assert main(["asn", "pool", str(tmp_path / "pool.csv"), *paths]) == 0
    assert "in order of their targets" in capsys.readouterr().err
    assert main(["asn", "pool", str(tmp_path / "pool.csv"), *sorted(paths, key=lambda path: "1_unc" in path)]) == 0
    assert capsys.readouterr().err == ""
