"""The report: everything in one file, failures first, nothing from names or errors taken as markup."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest

from jwstdask.core.plan import AssociationPlan, ExposurePlan, Outcome, StepPlan, StepRecord
from jwstdask.io.product import ProductWriter
from jwstdask.report.html import write_report
from jwstdask.report.quicklook import stretch, thumbnail, thumbnail_data
from jwstdask.steps.registry import step_class


def product(path: Path, shape: tuple[int, ...], seed: int = 0) -> str:
    """A product with a bright pixel and a NaN."""
    image = np.random.default_rng(seed).normal(10, 1, shape).astype(np.float32)
    image[..., 3, 4] = 1000
    image[..., 0, 0] = np.nan
    model = "ImageModel" if len(shape) == 2 else "CubeModel"
    with ProductWriter(path, model, {"meta.telescope": "JWST"}, {"sci": (shape, "float32")}) as writer:
        writer.write("sci", image)
        return writer.finish()


def outcomes(folder: Path) -> list[Outcome]:
    rate = product(folder / "a_rate.fits", (40, 50))
    mosaic = product(folder / "m_i2d.fits", (60, 30), 1)
    return [
        Outcome(
            "a_uncal.fits", "calwebb_detector1", {"rate": rate}, (StepRecord("jump", "COMPLETE", "", 0.5),), wall=1.0
        ),
        Outcome("b<script>.fits", "calwebb_detector1", error="b: <b>truncated</b>", traceback="Traceback"),
        Outcome("m", "calwebb_image3", {"i2d": mosaic}, (StepRecord("tweakreg", "SKIPPED", "one exposure"),)),
    ]


@pytest.fixture
def text(tmp_path: Path) -> str:
    step = step_class("jump")(rejection_threshold=7.0)
    steps = (StepPlan("jump", step, None, {"gain": "/c/gain_0001.fits"}, {"rejection_threshold": "command line"}),)
    plans = [ExposurePlan("a_uncal.fits", "calwebb_detector1", steps=steps, context="jwst_1234.pmap")]
    associations = [AssociationPlan("m", "calwebb_image3", ("a_cal.fits",))]
    path = write_report(tmp_path / "report.html", plans, associations, outcomes(tmp_path))
    return Path(path).read_text()


def test_report_says_what_happened(text: str) -> None:
    for wanted in (
        "jwst_1234.pmap",
        "a_rate.fits",
        "jump.rejection_threshold",
        "7.0",
        "command line",
        "gain_0001.fits",
    ):
        assert wanted in text
    assert "one exposure" in text and "Failures" in text


def test_report_is_self_contained(text: str) -> None:
    sources = re.findall(r'<img[^>]*src="([^"]*)"', text)
    assert len(sources) == 2 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.findall(r'(?:src|href)="https?://', text) and "@import" not in text


def test_names_and_errors_are_not_markup(text: str) -> None:
    assert "b<script>" not in text and "b&lt;script&gt;.fits" in text
    assert "<b>truncated</b>" not in text


def test_no_unfinished_report_is_left(tmp_path: Path) -> None:
    write_report(tmp_path / "new" / "report.html", [], [], [])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


@pytest.mark.parametrize("shape", [(40, 50), (3, 700, 1300)])
def test_thumbnail_is_thinned_out(tmp_path: Path, shape: tuple[int, ...]) -> None:
    from PIL import Image

    path = product(tmp_path / "x.fits", shape)
    uri = thumbnail(path)
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert max(image.size) <= 300 and min(image.size) > 100
    ratio, wanted = image.size[0] / image.size[1], shape[-1] / shape[-2]
    assert abs(ratio / wanted - 1) < 0.05


def test_thumbnail_data_are_pixels_of_the_image(tmp_path: Path) -> None:
    from jwstdask.io.layout import open_layout

    layout = open_layout(product(tmp_path / "x.fits", (700, 1300)))
    whole = layout.read("sci")
    stride = -(-1300 // 300)
    np.testing.assert_array_equal(thumbnail_data(layout), whole[::stride, ::stride])


def test_stretch_keeps_order_and_nan() -> None:
    image = np.linspace(-5, 500, 101, dtype=np.float32).reshape(1, -1)
    image[0, 7] = np.nan
    shown = stretch(image)
    good = np.isfinite(image)
    assert np.isnan(shown[~good]).all()
    assert (np.diff(shown[good]) >= 0).all() and shown[good].min() == 0 and shown[good].max() == 1
    assert np.isnan(stretch(np.full((3, 3), np.nan, np.float32))).all()
