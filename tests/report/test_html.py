"""The report: everything in one file, failures first, nothing from names or errors taken as markup."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from jwstdask.core.plan import AssociationPlan, ExposurePlan, Outcome, StepPlan, StepRecord
from jwstdask.io.product import ProductWriter
from jwstdask.report.data import of_outcomes
from jwstdask.report.html import digest, embedded, write_page, write_report
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


def content(text: str) -> dict:
    """The data of a page."""
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[0])


def test_report_says_what_happened(text: str) -> None:
    assert "jwst_1234.pmap" in text
    found = content(text)
    names = [name for name, *_ in found["exposures"]]
    assert names == ["a", "b<script>"]
    (_, (row,), used), (_, (failed,), _) = found["exposures"]
    assert found["states"][row[1]] == "done" and found["states"][failed[1]] == "failed"
    assert failed[13] == "b: <b>truncated</b>" and failed[14] == "Traceback"
    assert found["associations"][used[0]][0] == "m" and found["associations"][0][2] == ["a_cal.fits"]
    assert found["settings"][row[2]]["steps"] == [
        ["jump", None, [["rejection_threshold", "7.0", "command line"]], [["gain", "gain_0001.fits"]]]
    ]
    assert found["steps"][row[8]] == [["jump", "COMPLETE", ""]] and row[9] == [500]
    assert found["products"][row[10]] == [["rate", "\0_rate.fits"]]
    assert found["references"] == [["gain", "gain_0001.fits", 0, ""]]


def test_pictures_are_in_the_page(text: str) -> None:
    found = content(text)
    assert list(found["pictures"]) == ["a"] and list(found["mosaics"]) == ["m"]
    for source in (found["pictures"]["a"][0][1], found["mosaics"]["m"]):
        assert source.startswith("data:image/jpeg;base64,")


def test_no_more_pictures_than_wanted(tmp_path: Path) -> None:
    path = product(tmp_path / "x_rate.fits", (40, 50))
    done = [Outcome(f"a{number}_uncal.fits", "calwebb_detector1", {"rate": path}) for number in range(9)]
    data = of_outcomes(str(tmp_path), [], [], done)
    for most, expected in ((0, 0), (3, 3), (4, 3), (100, 9)):
        text = Path(write_page(tmp_path / "report.html", data, thumbnails=most)).read_text()
        assert len(content(text)["pictures"]) == expected


def test_a_product_that_cannot_be_read_has_no_picture(tmp_path: Path) -> None:
    (tmp_path / "x_rate.fits").write_bytes(b"half")
    done = [Outcome("x_uncal.fits", "calwebb_detector1", {"rate": str(tmp_path / "x_rate.fits")})]
    text = Path(write_report(tmp_path / "report.html", [], [], done)).read_text()
    assert content(text)["pictures"] == {} and content(text)["exposures"][0][0] == "x"


def test_report_is_self_contained(text: str) -> None:
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text) and "@import" not in text and "url(" not in text
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)[0]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy
    for element, name in (("style", "style-src"), ("script", "script-src")):
        body = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        assert len(body) == 1 and f"{name} '{digest(body[0])}'" in policy


def test_names_and_errors_are_not_markup(text: str) -> None:
    assert "b<script>" not in text and "<b>truncated</b>" not in text
    assert "b\\u003cscript\\u003e" in text


@pytest.mark.parametrize("value", ["</script>", "<!--<script>", "]]>", "\u2028\u2029", "\ud800", "&quot;", "\x00"])
def test_embedded_text_is_what_it_was(value: str) -> None:
    text = embedded({"a": value, value: [value]})
    assert not set(text) & set("<>&") and text.isascii()
    assert json.loads(text) == {"a": value, value: [value]}


def test_embedded_numbers_that_json_lacks() -> None:
    assert json.loads(embedded([math.nan, math.inf, 1.5, 2])) == [None, None, 1.5, 2]


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
