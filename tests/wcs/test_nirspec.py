"""Slits and slices of NIRSpec beside jwst: gwcs, bounding boxes and what they cover of the detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stdatamodels.jwst import datamodels

from jwstdask.refs.reference import open_reference
from jwstdask.simulate import nirspec as optics_of
from jwstdask.wcs import nirspec, nirspec_traces
from jwstdask.wcs.errors import MsaMetadataError

FULL = (2048, 2048)
AGREEMENT = {"rtol": 1e-12, "atol": 1e-12}
"""Both evaluate the same transforms in the same order; the last bits may differ where parts are put together."""


@pytest.fixture(scope="module")
def paths(module_folder):
    """References of all gratings and an MSA metadata file, by type."""
    meta = {"telescope": "JWST", "author": "tests", "pedigree": "DUMMY", "useafter": "2022-01-01T00:00:00"}
    folder = module_folder("nirspec_references")
    found = optics_of.write_references(folder, ["G235M", "G395H", "PRISM"], meta)
    slits = (*optics_of.SLITLETS, optics_of.Slitlet(5, 0, (), 6, "S200A2"))
    for name, slitlets in (("shutters", optics_of.SLITLETS), ("with_fixed_slit", slits)):
        found[name] = folder / f"{name}_msa.fits"
        optics_of.write_msa_metadata(found[name], slitlets, dithers=2)
    return found


def references_of(paths: dict[str, Path], grating: str, slits: str = "shutters") -> dict[str, Path]:
    found = {
        kind: path for kind, path in paths.items() if ":" not in kind and kind not in ("shutters", "with_fixed_slit")
    }
    return {**found, "disperser": paths[f"disperser:{grating}"], "msametafile": paths[slits]}


def metadata(detector: str, grating: str, exposure_type: str, **more: object) -> dict[str, object]:
    filters = {"G235M": "F170LP", "G395H": "F290LP", "PRISM": "CLEAR"}
    readings = optics_of.keywords(grating)
    values = {
        "meta.filename": "exposure_rate.fits",
        "meta.observation.program_number": "01234",
        "meta.instrument.name": "NIRSPEC",
        "meta.instrument.detector": detector,
        "meta.instrument.grating": grating,
        "meta.instrument.filter": filters[grating],
        "meta.instrument.fixed_slit": "NONE",
        "meta.instrument.gwa_xtilt": readings["GWA_XTIL"],
        "meta.instrument.gwa_ytilt": readings["GWA_YTIL"],
        "meta.instrument.gwa_tilt": readings["GWA_TILT"],
        "meta.instrument.msa_metadata_id": 1,
        "meta.dither.position_number": 2,
        "meta.exposure.type": exposure_type,
        "meta.subarray.name": "FULL",
        "meta.subarray.xstart": 1,
        "meta.subarray.ystart": 1,
        "meta.wcsinfo.v2_ref": 321.9,
        "meta.wcsinfo.v3_ref": -473.7,
        "meta.wcsinfo.v3yangle": 138.9,
        "meta.wcsinfo.vparity": -1,
        "meta.wcsinfo.roll_ref": 33.1,
        "meta.wcsinfo.ra_ref": 53.1,
        "meta.wcsinfo.dec_ref": -27.8,
        "meta.wcsinfo.velosys": -12345.6,
        "meta.velocity_aberration.scale_factor": 1.00003,
    }
    return values | {f"meta.{name.replace('__', '.')}": value for name, value in more.items()}


def optics(meta, files):
    trees = {kind: open_reference(path, kind).asdf for kind, path in files.items() if path.suffix == ".asdf"}
    return nirspec.Optics(meta, trees)


def oracle(meta, files, shape=FULL):
    """A rate with the oracle's WCS."""
    from jwst.assign_wcs.assign_wcs import load_wcs

    ifu = meta["meta.exposure.type"] == "NRS_IFU"
    model = (datamodels.IFUImageModel if ifu else datamodels.ImageModel)(data=np.ones(shape, np.float32))
    model.dq = np.zeros(shape, np.uint32)
    for name, value in meta.items():
        model[name] = value
    names = {kind: str(path) for kind, path in files.items()}
    # The slices keep the numbers that transforms take.
    return load_wcs(model, names, list(nirspec.Y_RANGE), nrs_ifu_slice_wcs=True)


def box_of(model, name):
    """The oracle's bounding box in x and y."""
    return np.asarray(model.meta.wcs.bounding_box[name])[:2]


def open_slits(meta, files):
    tables = open_reference(files["msametafile"], "msametafile")
    scales = nirspec.shutter_scales(open_reference(files["msa"], "msa").asdf)
    return nirspec.open_slitlets(meta, tables.table("SHUTTER_INFO"), tables.table("SOURCE_INFO"), scales)


def slits_of(meta, files):
    fixed = meta["meta.exposure.type"] != "NRS_MSASPEC"
    return nirspec.fixed_slits(meta) if fixed else open_slits(meta, files)


def compare_wcs(own, theirs, names, boxes):
    assert own.available_frames == theirs.available_frames
    finite = 0
    for name in names:
        (left, right), (low, high) = boxes[name]
        x, y = np.meshgrid(np.linspace(left, right, 31), np.linspace(low, high, 17))
        for first, second in (("detector", "slit_frame"), ("detector", theirs.output_frame.name)):
            mine = own.get_transform(first, second)
            reference = theirs.get_transform(first, second)
            for ours, jwst in zip(mine(x, y, name), reference(x, y, name), strict=True):
                np.testing.assert_allclose(ours, jwst, **AGREEMENT)
        world = reference(x, y, name)
        finite += np.isfinite(world[2]).sum()
        inside = np.isfinite(world[2])
        if not inside.any():
            continue
        points = [np.asarray(value)[inside] for value in world[:3]] + [name]
        back = mine.inverse(*points)
        for ours, jwst in zip(back, reference.inverse(*points), strict=True):
            # Pixels; the relative accuracy of 1e-9 that is asked for is 2e-6 of them.
            np.testing.assert_allclose(ours, jwst, rtol=1e-9, atol=1e-9)
    assert finite > 50 * len(names)


SLIT_MODES = [
    ("NRS1", "G235M", "NRS_FIXEDSLIT", {}),
    ("NRS2", "G395H", "NRS_FIXEDSLIT", {}),
    ("NRS1", "PRISM", "NRS_BRIGHTOBJ", {"subarray__name": "SUB512", "subarray__xstart": 1025, "subarray__ystart": 967}),
    ("NRS2", "G395H", "NRS_FIXEDSLIT", {"subarray__name": "SUBS200A1", "subarray__ystart": 1054}),
    ("NRS1", "PRISM", "NRS_MSASPEC", {}),
    ("NRS1", "G235M", "NRS_MSASPEC", {"wcsinfo__velosys": None, "instrument__gwa_xtilt": None}),
]
SHAPES = {"SUB512": (32, 512), "SUBS200A1": (64, 2048)}


@pytest.mark.parametrize(
    ("detector", "grating", "exposure_type", "more"), SLIT_MODES, ids=["-".join(mode[:3]) for mode in SLIT_MODES]
)
def test_slits_as_the_oracle(paths, detector, grating, exposure_type, more):
    from jwst.clean_flicker_noise.clean_flicker_noise import mask_slits

    meta = metadata(detector, grating, exposure_type, **more)
    files = references_of(paths, grating, "shutters" if detector == "NRS2" or grating == "PRISM" else "with_fixed_slit")
    shape = SHAPES.get(meta["meta.subarray.name"], FULL)
    model = oracle(meta, files, shape)
    own = optics(meta, files)
    slits = nirspec_traces.on_detector(own, slits_of(meta, files))
    theirs = model.meta.wcs.get_transform("gwa", "slit_frame").slits
    assert [tuple(slit)[:10] for slit in sorted(slits, key=lambda slit: slit.quadrant)] == [
        tuple(slit)[:10] for slit in theirs
    ]
    boxes = nirspec_traces.slit_boxes(own, slits)
    for slit in slits:
        np.testing.assert_array_equal(boxes[slit.slit_id], box_of(model, slit.slit_id))
    wcs = nirspec.slits_wcs(own, slits)
    nirspec.bound(wcs, boxes)
    compare_wcs(wcs, model.meta.wcs, [slit.slit_id for slit in slits[:3]], boxes)
    mask = nirspec_traces.slits_mask(own, slits, shape)
    np.testing.assert_array_equal(mask, ~mask_slits(model, np.ones(shape, np.bool_)))
    assert 0.005 < mask.mean() < 1


def test_sources_of_slitlets_as_the_oracle(paths):
    from jwst.assign_wcs.nirspec import get_msa_slit_scales, get_open_msa_slits

    meta = metadata("NRS1", "G235M", "NRS_MSASPEC")
    files = references_of(paths, "G235M", "with_fixed_slit")
    scales = get_msa_slit_scales(str(files["msa"]))
    theirs = get_open_msa_slits("1234", str(files["msametafile"]), 1, 2, nirspec.Y_RANGE, scales)
    own = open_slits(meta, files)
    assert len(own) == len(theirs) == 7
    for ours, jwst in zip(own, theirs, strict=True):
        for name in ours._fields:
            assert getattr(ours, name) == getattr(jwst, name), (ours.name, name)


def test_slices_as_the_oracle(paths):
    from jwst.clean_flicker_noise.clean_flicker_noise import mask_ifu_slices

    meta = metadata("NRS2", "G395H", "NRS_IFU")
    files = references_of(paths, "G395H")
    model = oracle(meta, files)
    own = optics(meta, files)
    boxes = {number: box_of(model, number) for number in range(nirspec.SLICES)}
    for number, trace in enumerate(nirspec_traces.slice_traces(own)):
        if number % 7 == 0:
            np.testing.assert_array_equal(trace.box, boxes[number])
    compare_wcs(nirspec.slices_wcs(own), model.meta.wcs, [0, 17, 29], boxes)
    mask = nirspec_traces.slices_mask(own, FULL)
    np.testing.assert_array_equal(mask, ~mask_ifu_slices(model, np.ones(FULL, np.bool_)))
    assert 0.05 < mask.mean() < 0.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instrument__msa_metadata_id": None}, "MSAMETID"),
        ({"dither__position_number": None}, "PATT_NUM"),
    ],
)
def test_metadata_without_what_selects_slitlets(paths, change, message):
    meta = metadata("NRS1", "G235M", "NRS_MSASPEC", **change)
    with pytest.raises(MsaMetadataError, match=message):
        open_slits(meta, references_of(paths, "G235M"))


def test_slitlets_that_contradict_themselves(paths):
    meta = metadata("NRS1", "G235M", "NRS_MSASPEC")
    tables = open_reference(paths["shutters"], "msametafile")
    shutters, sources = tables.table("SHUTTER_INFO").copy(), tables.table("SOURCE_INFO")
    shutters["primary_source"] = "Y"
    with pytest.raises(MsaMetadataError, match="3 primary shutters"):
        nirspec.open_slitlets(meta, shutters, sources)
    shutters = tables.table("SHUTTER_INFO").copy()
    shutters["background"] = "Y"
    with pytest.raises(MsaMetadataError, match="no shutter that is not background"):
        nirspec.open_slitlets(meta, shutters, sources)


def test_prism_needs_its_temperature(paths):
    meta = metadata("NRS1", "PRISM", "NRS_FIXEDSLIT", instrument__gwa_tilt=None)
    with pytest.raises(KeyError, match="GWA_TILT"):
        nirspec_traces.slit_boxes(optics(meta, references_of(paths, "PRISM")), nirspec.fixed_slits(meta))
