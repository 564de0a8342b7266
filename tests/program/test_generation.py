"""Associations of pools beside those of jwst: names, rules, products, members with attributes, everything in order."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from jwstdask.program.generation.exposures import role
from jwstdask.program.generation.generate import RULES, generate, orphans, pool_candidates
from jwstdask.program.pool import make_pool, read_pool
from tests.program.pools import MODES, comparable, jwst_associations, random_pool, write

# Those jwst needs no more than some seconds for.
SMALL = """
jw09505_20251216t202003_pool jw87800_20180412T163456_pool pool_002_image_miri pool_003_image_nircam
pool_005_spec_niriss pool_008_exposerr pool_010_spec_nirspec_lv2bkg
pool_017_spec_nirspec_lv2imprint pool_019_niriss_wfss pool_020_00009_image_miri pool_021_tso
pool_023_nirspec_msa_3nod pool_024b_nirspec_fss_nods pool_025_nirspec_fss_nod_chop pool_033_wfs_jitter pool_duplicate
""".split()
# Seeds of random pools of ten exposures: all rules make associations of them.
SEEDS = {
    "ami": 3,
    "bright object": 134,
    "fixed slit": 5,
    "guider": 5,
    "ifu": 5,
    "lamp": 12,
    "lrs": 3,
    "miri coronagraphy": 0,
    "miri image": 13,
    "miri slitless": 20,
    "mrs": 5,
    "msa": 0,
    "nircam coronagraphy": 19,
    "nircam image and slitless": 0,
    "nircam time series": 0,
    "niriss slitless": 1,
    "soss": 1,
    "wavefront": 1,
}
OPTIONS = {
    "--all-candidates": {"discover": False},
    "--discover": {"all_candidates": False},
    "--merge": {"merged": True},
}


@pytest.fixture
def real_pool(tmp_path):
    """A pool that jwst is tested with; what is left to be numbered in it is numbered by jwst's own tests."""
    from jwst.associations.tests.helpers import combine_pools

    root = os.environ.get("JWSTDASK_REALDATA")
    if not root:
        pytest.skip("JWSTDASK_REALDATA is not set")

    def find(name: str) -> Path:
        path = tmp_path / f"{name}.csv"
        combine_pools(str(Path(root) / "associations" / "pools" / path.name)).write(path, format="ascii", delimiter="|")
        return path

    return find


def our_associations(path, **options):
    return {association.name: comparable(association.tree()) for association in generate(read_pool(path), **options)}


def check(ours, theirs):
    """The same associations in the same order."""
    assert list(ours) == list(theirs)
    assert ours == theirs


@pytest.mark.parametrize("name", SMALL)
def test_real_pools(real_pool, name):
    path = real_pool(name)
    theirs = jwst_associations(path)
    assert theirs
    check(our_associations(path), theirs)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ["pool_019_niriss_wfss", "pool_025_nirspec_fss_nod_chop"])
def test_options(real_pool, name, option):
    path = real_pool(name)
    check(our_associations(path, **OPTIONS[option]), jwst_associations(path, option))


@pytest.mark.parametrize("ids", [["o001"], ["c1001", "o003", "none"], ["o002", "c1000"]])
def test_ids(real_pool, ids):
    path = real_pool("pool_025_nirspec_fss_nod_chop")
    theirs = jwst_associations(path, "--ids", *ids)
    assert theirs
    check(our_associations(path, ids=ids, discover=False), theirs)


@pytest.mark.parametrize("ids", [["o001"], ["o003"]])
def test_background_candidates_of_observations(real_pool, ids):
    path = real_pool("pool_025_nirspec_fss_nod_chop")
    theirs = jwst_associations(path, "--DMS", "--ids", *ids)
    ours = our_associations(path, ids=ids, discover=False, with_backgrounds=True)
    check(ours, theirs)
    assert ours != our_associations(path, ids=ids, discover=False) or ids == ["o001"]


def test_duplicates_are_kept_for_debugging(real_pool):
    path = real_pool("pool_025_nirspec_fss_nod_chop")

    # jwst counts the duplicates of all pools of a process, and numbers them before it has dropped others.
    def without_counts(found):
        names = (name[9:-10] if name.startswith("dup") else name for name in found)
        return sorted(
            (name, json.dumps(tree, sort_keys=True)) for name, tree in zip(names, found.values(), strict=True)
        )

    theirs = jwst_associations(path, "--debug")
    assert any(name.startswith("dup") for name in theirs)
    assert without_counts(our_associations(path, keep_duplicates=True)) == without_counts(theirs)


@pytest.mark.parametrize("mode", MODES)
def test_random_pools(mode, tmp_path):
    path = write(random_pool(SEEDS[mode], mode, exposures=10), tmp_path / "random.csv")
    check(our_associations(path), jwst_associations(path))


@pytest.mark.parametrize("seed", range(100, 108))
def test_random_pools_of_mixed_modes(seed, tmp_path):
    path = write(random_pool(seed), tmp_path / "random.csv")
    check(our_associations(path), jwst_associations(path))


def test_every_rule_is_among_the_random_pools():
    """Otherwise the comparison says nothing about a rule."""
    made = set()
    for mode in MODES:
        pool = make_pool(random_pool(SEEDS[mode], mode, exposures=10))
        made |= {association.rule.split("_", 1)[1] for association in generate(pool)}
    assert made == {rule.name for rule in RULES}


def test_rules_are_those_of_jwst():
    from jwst.associations import AssociationRegistry

    # One of jwst's rules makes no associations but reminds the others of target acquisitions.
    assert [rule.name for rule in RULES] == [name for name in AssociationRegistry() if name != "Asn_Lv3ACQ_Reprocess"]


@pytest.mark.parametrize("seed", range(40))
def test_roles_are_those_of_jwst(seed):
    from jwst.associations.lib.dms_base import get_exposure_type

    for row in make_pool(random_pool(seed)):
        assert role(row) == get_exposure_type(row.values)


@pytest.mark.parametrize("seed", range(20))
def test_orphans_are_in_no_association(seed):
    pool = make_pool(random_pool(seed))
    made = generate(pool)
    left = {row.filename.removesuffix("_uncal.fits") for row in orphans(pool, made)}
    used = {
        member.expname.rsplit("_", 1)[0] for item in made for product in item.products for member in product.members
    }
    assert not left & used
    # What is in no association but is no orphan either has become the direct image of slitless spectra.
    hidden = {row.filename.removesuffix("_uncal.fits") for row in pool} - left - used
    kinds = {row.get("exp_type") for row in pool if row.filename.removesuffix("_uncal.fits") in hidden}
    assert kinds <= {"nrc_image", "nis_image", "mir_image", "nrs_ifu"}


def test_candidates_come_by_type():
    pool = make_pool(
        {"filename": f"{index}_uncal.fits", "asn_candidate": text}
        for index, text in enumerate(
            (
                "[('o001', 'OBSERVATION'), ('c1000', 'mosaic')]",
                "[('o002', 'observation')]",
                "null",
                "[('o001', 'observation')]",
            )
        )
    )
    assert [(candidate.id, candidate.type) for candidate in pool_candidates(pool)] == [
        ("o001", "observation"),
        ("o002", "observation"),
        ("c1000", "mosaic"),
    ]


def test_version_tags_names(real_pool):
    path = real_pool("pool_020_00009_image_miri")
    tag = "20260101t000000"
    check(our_associations(path, version_id=tag), jwst_associations(path, "--version-id", tag))
