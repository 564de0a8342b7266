"""Associations through steps alone and through calwebb_image3: what is saved on the way, beside the oracle."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from jwstdask.core.settings import Layer, Settings
from jwstdask.pipeline import Image3Pipeline
from jwstdask.pipelines.associate import plan_association
from jwstdask.program.associations import read_association
from jwstdask.step import OutlierDetectionStep, ResampleStep, SkyMatchStep, TweakRegStep
from tests.steps.dithered import oracle_models

NAME = "jw01234-a3001_t001_nircam_clear-f200w"
SOFTWARE = ("DATE", "CAL_VER", "CAL_VCS", "JDASKVER")


@pytest.fixture(scope="module", autouse=True)
def _no_crds():
    """There are no references, and no parameter references are sought."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STPIPE_DISABLE_CRDS_STEPPARS", "true")
        yield


@pytest.fixture(scope="module")
def association(module_folder):
    """Three images of 100 x 120, two of them of one exposure, and their association."""
    folder = module_folder("members")
    models = oracle_models(count=3, groups=(0, 0, 1))
    for model in models:
        model.save(folder / model.meta.filename)
    return write_association(folder, [{"expname": model.meta.filename} for model in models])


def write_association(folder, members):
    tree = {"asn_type": "image3", "asn_rule": "DMS_Level3_Base", "asn_id": "a3001", "asn_pool": "none"}
    tree |= {"program": "01234", "constraints": "none", "code_version": "3.0.0"}
    tree["products"] = [{"name": NAME, "members": [{**member, "exptype": "science"} for member in members]}]
    path = folder / "image3_asn.json"
    path.write_text(json.dumps(tree))
    return path


def both(ours, association, tmp_path, **how):
    """Folders of the products of this package and of the oracle."""
    import jwst.pipeline
    import jwst.step

    name = ours.__name__
    theirs = getattr(jwst.pipeline if name.endswith("Pipeline") else jwst.step, name)
    folders = tmp_path / "ours", tmp_path / "oracle"
    for folder, cls, more in zip(folders, (ours, theirs), ({}, {"configure_log": False}), strict=True):
        folder.mkdir()
        cls.call(str(association), output_dir=str(folder), save_results=True, **how, **more)
    assert sorted(path.name for path in folders[0].iterdir()) == sorted(path.name for path in folders[1].iterdir())
    return folders


def assert_same_files(folders, pattern="*.fits", rtol=0.0, share=0.0):
    """HDUs that hold data, keywords and pixels, these within a share of the largest; a weight within a billionth of the
    largest one, that is of a share of an area.
    """
    found = sorted(path.name for path in folders[0].glob(pattern))
    assert found
    for name in found:
        with fits.open(folders[0] / name) as own, fits.open(folders[1] / name) as theirs:
            wanted = [hdu.name for hdu in theirs if hdu.data is not None]
            assert [hdu.name for hdu in own if hdu.data is not None] == wanted, name
            headers = [
                {key: value for key, value in file[0].header.items() if key not in SOFTWARE} for file in (own, theirs)
            ]
            assert headers[0] == headers[1], name
            for hdu in wanted:
                if hdu in ("ASDF", "HDRTAB"):
                    continue
                atol = (1e-9 if hdu == "WHT" and rtol else share) * np.nanmax(theirs[hdu].data)
                np.testing.assert_allclose(own[hdu].data, theirs[hdu].data, rtol, atol, err_msg=f"{name} {hdu}")
                assert own[hdu].data.dtype == theirs[hdu].data.dtype


SKIPPED = {name: {"skip": True} for name in ("tweakreg", "skymatch", "source_catalog")}


def test_intermediate_images_of_outlier_detection(association, tmp_path):
    steps = SKIPPED | {"outlier_detection": {"save_intermediate_results": True}}
    folders = both(Image3Pipeline, association, tmp_path, steps=steps)
    for suffix in ("outlier_i2d", "median", "crf"):
        assert_same_files(folders, f"*_{suffix}.fits", rtol=1e-6)
    # The positions at which the median is looked up differ by a millionth of a pixel. Quintics through values between 0
    # and the peak: along an axis they rise by 1.27 peaks a pixel at most, and the weights along the other one add up
    # to 1.39 regardless of sign; along both axes together 3.5.
    assert_same_files(folders, "*_blot.fits", rtol=1e-6, share=3.5e-6)
    assert len(list(folders[0].glob("*_blot.fits"))) == 3 and len(list(folders[0].glob("*_outlier_i2d.fits"))) == 2


def test_the_median_of_images_that_are_not_resampled(association, tmp_path):
    folders = both(OutlierDetectionStep, association, tmp_path, save_intermediate_results=True, resample_data=False)
    assert_same_files(folders)
    assert len(list(folders[0].iterdir())) == 4


def test_images_of_single_exposures(association, tmp_path):
    """Errors and weights as in the tests of the step."""
    folders = both(ResampleStep, association, tmp_path, single=True)
    assert_same_files(folders, rtol=1e-6)
    assert len(list(folders[0].iterdir())) == 2


def test_images_of_single_exposures_in_the_pipeline(association, tmp_path):
    steps = SKIPPED | {"outlier_detection": {"skip": True}, "resample": {"single": True}}
    folders = both(Image3Pipeline, association, tmp_path, steps=steps)
    assert {path.name for path in folders[0].iterdir()} == {f"{NAME}_0_i2d.fits", f"{NAME}_1_i2d.fits"}


@pytest.mark.parametrize("parameters", [{}, {"output_file": "sky.fits"}])
def test_members_after_a_step_alone(association, tmp_path, parameters):
    folders = both(SkyMatchStep, association, tmp_path, **parameters)
    assert_same_files(folders, rtol=1e-6)
    assert len(list(folders[0].iterdir())) == 3


def test_members_after_a_step_of_the_pipeline(association, tmp_path):
    """What is saved later is named after it."""
    steps = SKIPPED | {"skymatch": {"save_results": True}}
    folders = both(Image3Pipeline, association, tmp_path, steps=steps)
    assert len(list(folders[0].glob("*_skymatch.fits"))) == len(list(folders[0].glob("*_crf.fits"))) == 3


def test_what_a_step_alone_returns(association, tmp_path):
    found = SkyMatchStep.call(str(association), output_dir=str(tmp_path))
    assert [item.attrs["meta.cal_step.skymatch"] for item in found] == ["COMPLETE"] * 3


# -- what an association says of its members


@pytest.mark.parametrize("custom", [True, False])
def test_catalogues_named_by_the_association(association, tmp_path, custom):
    """They are sought beside the association; without use_custom_catalogs the name is only handed on, as in jwst."""
    from jwst.datamodels import ModelLibrary

    names = [path.name for path in sorted(association.parent.glob("*_cal.fits"))]
    for name in names:
        (tmp_path / name).symlink_to(association.parent / name)
    (tmp_path / "stars").mkdir()
    Table({"x": [10.0], "y": [20.0]}).write(tmp_path / "stars" / "first.ecsv")
    catalogs = {"tweakreg_catalog": "stars/first.ecsv"}, {"tweakreg_catalog": ""}, {"group_id": "g"}
    path = write_association(tmp_path, [{"expname": name, **more} for name, more in zip(names, catalogs, strict=True)])
    found = read_association(path)
    layers = (Layer("test", {"use_custom_catalogs": custom}),)
    (plan,) = plan_association(TweakRegStep.target, found, Settings(layers))
    assert plan.error is None
    library = ModelLibrary(path)
    with library:
        theirs = [model.meta.tweakreg_catalog for model in library if library.shelve(model, modify=False) is None]
    own = [update.get("meta.tweakreg_catalog") for update in plan.member_updates]
    assert theirs == ["stars/first.ecsv", "", None]
    assert own == [str(tmp_path / "stars" / "first.ecsv") if custom else "stars/first.ecsv", "", None]
    assert plan.member_updates[2] == {"meta.group_id": "g"}
    members = json.loads(found.dump())["products"][0]["members"]
    assert [{name: item[name] for name in item if name not in ("expname", "exptype")} for item in members] == list(
        catalogs
    )
