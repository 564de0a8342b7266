"""Programs with exposures whose first stage is not calwebb_detector1."""

from __future__ import annotations

import pytest

import jwstdask
from jwstdask.engine.executor import Serial
from tests.oracle.exposures import environment, guider_cache, guider_exposure, miri_cache, miri_exposure


@pytest.fixture
def use(monkeypatch):
    """Make a folder the CRDS cache."""

    def set_environment(folder):
        for name, value in environment(folder).items():
            monkeypatch.setenv(name, value)

    return set_environment


def test_guiders(tmp_path, use):
    guider_cache(tmp_path / "crds", (1200, 512))
    use(tmp_path / "crds")
    folder = tmp_path / "inputs"
    folder.mkdir()
    for mode in ("ID-IMAGE", "FINEGUIDE"):
        guider_exposure(folder / f"jw01019001001_gs-{mode.lower()}_2022274000000_uncal.fits", f"FGS_{mode}")
    result = jwstdask.run_program(folder, through=2, output_dir=tmp_path / "products", executor=Serial())
    assert not result.failed
    assert sorted(path.name for path in (tmp_path / "products").iterdir()) == [
        f"jw01019001001_gs-{mode}_2022274000000_cal.fits" for mode in ("fineguide", "id-image")
    ]
    for outcome in result.outcomes:
        assert outcome.pipeline == "calwebb_guider"
        ds = jwstdask.open_exposure(outcome.products["cal"])
        assert ds.attrs["meta.model_type"] == "GuiderCalModel"
        assert ds.dq.dims == ("y", "x")


def test_darks_and_images_together(tmp_path, use):
    miri_cache(tmp_path / "crds")
    use(tmp_path / "crds")
    folder = tmp_path / "inputs"
    folder.mkdir()
    image = miri_exposure(folder / "jw01234001001_02101_00001_mirimage_uncal.fits")
    dark = miri_exposure(folder / "jw01234001001_02101_00002_mirimage_uncal.fits", "MIR_DARKIMG")
    steps = {"emicorr": {"skip": False}}
    result = jwstdask.run_program(folder, through=1, output_dir=tmp_path / "products", steps=steps, executor=Serial())
    assert not result.failed
    pipelines = {outcome.path: (outcome.pipeline, set(outcome.products)) for outcome in result.outcomes}
    assert pipelines == {
        str(image): ("calwebb_detector1", {"rate", "rateints"}),
        str(dark): ("calwebb_dark", {"dark"}),
    }
    for outcome in result.outcomes:
        done = {record.name: record.status for record in outcome.steps}
        assert done["emicorr"] == "COMPLETE"
        assert ("ramp_fit" in done) == (outcome.path == str(image))
