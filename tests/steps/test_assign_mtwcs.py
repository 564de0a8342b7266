from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from jwstdask.steps.combine.assign_mtwcs import AssignMTWcsStep, moving_target_wcs
from jwstdask.steps.imaging.assign_wcs import AssignWcsStep
from tests.wcs.test_imaging import assert_same_wcs, metadata, opened, write_references

SHAPE = (64, 80)
TARGETS = [(359.99, -72.1), (359.9913, -72.0998), (359.9951, -72.1004)]


def members_of(folder, targets):
    references = opened(write_references(folder, "nircam"))
    members = []
    for number, (ra, dec) in enumerate(targets):
        target = {"meta.wcsinfo.mt_ra": ra, "meta.wcsinfo.mt_dec": dec, "meta.wcsinfo.ra_ref": 359.99 + 0.001 * number}
        meta = metadata("nircam", subarray=(5, 9, *SHAPE), **target)
        wcs, changes = AssignWcsStep(sip_approx=False).run_exposure(meta, references)
        members.append(SimpleNamespace(path=f"{number}_cal.fits", meta=meta | changes, wcs=wcs, shape=SHAPE))
    return members


def oracle(members):
    from jwst.assign_mtwcs.moving_target_wcs import assign_moving_target_wcs
    from jwst.datamodels import ModelLibrary
    from stdatamodels.jwst.datamodels import ImageModel

    models = []
    for member in members:
        model = ImageModel(SHAPE)
        for name, value in member.meta.items():
            model[name] = value
        model.meta.wcs = member.wcs
        model.meta.filename = member.path
        models.append(model)
    library = assign_moving_target_wcs(ModelLibrary(models))
    with library:
        found = [library.borrow(index) for index in range(len(models))]
        for index, model in enumerate(found):
            library.shelve(model, index, modify=False)
    return found


@pytest.mark.parametrize("count", [1, 3])
def test_equals_the_oracle(count, tmp_path):
    members = members_of(tmp_path, TARGETS[:count])
    wanted = oracle(members)
    before = [member.wcs for member in members]
    assert AssignMTWcsStep().run(members, {}, None) is None
    for member, model, old in zip(members, wanted, before):
        assert model.meta.cal_step.assign_mtwcs == "COMPLETE"
        assert_same_wcs(member.wcs, model.meta.wcs, SHAPE)
        assert member.wcs.available_frames[-1] == "moving_target"
        for key in ("mt_avra", "mt_avdec", "s_region"):
            assert member.meta[f"meta.wcsinfo.{key}"] == getattr(model.meta.wcsinfo, key)
        assert old.available_frames[-1] == "world"


def test_offsets_from_the_target_become_offsets_from_its_mean_place(tmp_path):
    members = members_of(tmp_path, TARGETS)
    before = [member.wcs for member in members]
    AssignMTWcsStep().run(members, {}, None)
    mean = np.mean(TARGETS, axis=0)
    x, y = np.array([0.0, 30.0, 79.0]), np.array([5.0, 63.0, 0.0])
    for member, old, target in zip(members, before, TARGETS):
        found = np.stack(member.wcs(x, y), axis=1) - mean
        # Right ascensions near 360 degrees round to 5.7e-14 degree; a few of them are added.
        np.testing.assert_allclose(found, np.stack(old(x, y), axis=1) - target, rtol=0, atol=3e-13)


@pytest.mark.parametrize("name", ["meta.wcsinfo.mt_ra", "meta.wcsinfo.mt_dec"])
def test_one_missing_position_leaves_all_members(name, tmp_path):
    members = members_of(tmp_path, TARGETS)
    del members[1].meta[name]
    before = [(member.wcs, dict(member.meta)) for member in members]
    reason = AssignMTWcsStep().run(members, {}, None)
    assert reason == "MT_RA or MT_DEC missing in 1_cal.fits: the targets are not aligned"
    assert [(member.wcs, member.meta) for member in members] == before


def test_frame_without_sky_is_refused():
    from gwcs import coordinate_frames as cf

    wcs = SimpleNamespace(output_frame=cf.Frame2D(name="v2v3"), pipeline=[])
    with pytest.raises(TypeError, match="a moving target needs sky coordinates, not a Frame2D"):
        moving_target_wcs(wcs, 0.0, 0.0)
