"""Stage 3 associations of a program whose headers alone are known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jwstdask.program.associations import make_associations
from jwstdask.program.pool import pool_from_metadata
from tests.program.pools import jwst_associations


def exposure(number: int, **changes: Any) -> tuple[str, dict[str, Any]]:
    """Path and metadata of a calibrated NIRCam image."""
    meta = {
        "meta.observation.program_number": "01234",
        "meta.observation.observation_number": "001",
        "meta.observation.bkgdtarg": False,
        "meta.visit.type": "PRIME_TARGETED_FIXED",
        "meta.visit.tsovisit": False,
        "meta.exposure.type": "NRC_IMAGE",
        "meta.instrument.name": "NIRCAM",
        "meta.instrument.detector": "NRCB1",
        "meta.instrument.channel": "SHORT",
        "meta.instrument.filter": "F200W",
        "meta.instrument.pupil": "CLEAR",
        "meta.subarray.name": "FULL",
        "meta.target.catalog_name": "M42",
        "meta.target.proposer_name": "Orion",
    }
    meta |= {f"meta.{name.replace('__', '.')}": value for name, value in changes.items()}
    return f"/Data/jw01234001001_02101_{number:05d}_nrcb1_cal.fits", meta


PROGRAM = [
    exposure(3),
    exposure(1),
    exposure(2, instrument__detector="NRCA3"),
    exposure(4, instrument__filter="F115W"),
    exposure(5, observation__observation_number="002"),
    exposure(6, subarray__name="SUB160"),
    exposure(7, target__catalog_name="NGC1"),
    exposure(8, observation__bkgdtarg=True, target__catalog_name="SKY"),
    exposure(9, visit__type="PRIME_WFSC_SENSING_CONTROL"),
    exposure(10, visit__tsovisit=True),
    exposure(11, exposure__type="NRC_CORON", instrument__pupil="MASKRND"),
]


def test_members_are_the_files():
    found = make_associations([PROGRAM[0], PROGRAM[1], PROGRAM[2]])
    assert [(item.asn_type, item.asn_id, item.extra["program"]) for item in found] == [("image3", "o001", "01234")]
    (product,) = found[0].products
    assert product.name == "jw01234-o001_t001_nircam_clear-f200w"
    assert product.members == tuple(
        (path, "science") for path in sorted(path for path, _ in (PROGRAM[0], PROGRAM[1], PROGRAM[2]))
    )


def test_beside_jwst(tmp_path):
    """The same products as jwst's rules make of the same exposures."""
    ordered = sorted(PROGRAM)
    pool = pool_from_metadata(ordered)
    path = tmp_path / "pool.csv"
    lines = ["|".join(pool.columns), *("|".join(row.values.values()) for row in pool)]
    path.write_text("\n".join(lines) + "\n")
    theirs = {
        tree["products"][0]["name"]: [member["expname"] for member in tree["products"][0]["members"]]
        for tree in jwst_associations(path, "--all-candidates").values()
        if tree["asn_type"] == "image3"
    }
    ours = {
        item.products[0].name: [member.rsplit("/", 1)[1] for member, _ in item.products[0].members]
        for item in make_associations(PROGRAM)
    }
    assert ours == theirs
    assert len(ours) == 7


@pytest.mark.parametrize("missing", ["meta.target.catalog_name", "meta.instrument.pupil", "meta.visit.type"])
def test_what_a_header_may_lack(missing):
    path, meta = exposure(1)
    del meta[missing]
    (made,) = make_associations([(path, meta)])
    assert made.products[0].members == ((path, "science"),)


def test_asked_for_by_type():
    assert make_associations(PROGRAM, ["spec3"]) == []
    assert {item.asn_type for item in make_associations(PROGRAM, ["image3", "wfs-image3"])} == {"image3"}


def test_dumped():
    (made,) = make_associations([PROGRAM[1]])
    tree = json.loads(made.dump())
    assert tree["asn_rule"] == "candidate_Asn_Lv3Image"
    assert tree["products"][0]["members"] == [
        {"expname": "jw01234001001_02101_00001_nrcb1_cal.fits", "exptype": "science"}
    ]
