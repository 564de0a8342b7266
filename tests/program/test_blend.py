from __future__ import annotations

import numpy as np
import pytest

from jwstdask.core.errors import PlanError
from jwstdask.program.blend import RULES, blend, blend_schema


@pytest.mark.parametrize("model", ["ImageModel", "SlitModel", "IFUImageModel", "CubeModel", "MultiSlitModel"])
def test_rules_and_columns_of_the_schemas(model):
    import stdatamodels.jwst.datamodels as datamodels
    from jwst.model_blender._schemautil import parse_schema

    columns, rules, lists = parse_schema(getattr(datamodels, model)().schema)
    ours = blend_schema(model)
    assert list(ours.columns.items()) == list(columns.items())
    assert ours.rules == rules
    assert set(ours.lists) == set(lists)


def models():
    from stdatamodels.jwst.datamodels import ImageModel

    found = []
    for k in range(3):
        model = ImageModel()
        model.meta.instrument.name = "NIRCAM"
        model.meta.instrument.detector = ("NRCA1", "NRCA1", "NRCA4")[k]
        model.meta.exposure.exposure_time = (100.25, 20.5, 7.125)[k]
        model.meta.exposure.start_time = (61000.5, 60999.25, 61001.0)[k]
        model.meta.exposure.end_time = (61000.75, 60999.5, 61001.25)[k]
        model.meta.observation.date = ("2026-01-02", "2026-01-01", "2026-01-03")[k]
        model.meta.observation.time = ("10:00:00.000", "23:00:00.000", "01:00:00.000")[k]
        model.meta.observation.bkgdtarg = (True, False, True)[k]
        model.meta.target.proposer_name = ("A", "B", "C")[k]
        model.meta.wcsinfo.ra_ref = 10.0 + k
        model.meta.photometry.pixelarea_arcsecsq = 0.1 * k
        if k != 1:
            model.meta.target.catalog_name = "M 1"
            model.meta.visit.status = "SUCCESSFUL"
            model.meta.exposure.nresets_at_start = 4 + k
        found.append(model)
    return found


def test_product_of_the_oracle():
    from jwst.model_blender import ModelBlender
    from stdatamodels.jwst.datamodels import ImageModel

    inputs, ignore = models(), ["meta.photometry.pixelarea_arcsecsq", "meta.filename"]
    blender, product = ModelBlender(blend_ignore_attrs=ignore), ImageModel()
    for model in inputs:
        blender.accumulate(model)
    blender.finalize_model(product)
    wanted = product.to_flat_dict(include_arrays=False)
    meta, table = blend([model.to_flat_dict(include_arrays=False) for model in inputs], ignore)
    assert meta["meta.observation.date"] == "2026-01-01"
    for name, value in meta.items():
        assert value == wanted[name], name
    assert not any(name.startswith(("meta.wcsinfo", *ignore)) for name in meta)
    assert table.dtype.names == product.hdrtab.dtype.names
    for name in table.dtype.names:
        theirs = product.hdrtab[name].astype(table.dtype[name])
        assert np.array_equal(table[name], theirs, equal_nan=table.dtype[name].kind == "f"), name
    assert table["DETECTOR"].tolist() == [b"NRCA1", b"NRCA1", b"NRCA4"]


def test_rules():
    assert RULES["multi"](["a", "a"]) == "a"
    assert RULES["multi"](["a", "b"]) == "MULTIPLE"
    assert RULES["wheeltol"](["within commanded tolerance"] * 2) == "within commanded tolerance"
    assert RULES["wheeltol"](["within commanded tolerance", "outside calibration tolerance"]).startswith("outside")
    assert RULES["mean"]([1, 2]) == 1.5
    assert isinstance(RULES["sum"]([1, 2]), int)


def test_nothing_or_nonsense():
    with pytest.raises(PlanError, match="no exposures"):
        blend([])
    with pytest.raises(PlanError, match="no data model called Nonsense"):
        blend([{}], model="Nonsense")
    rule = next(name for name, rule in blend_schema("ImageModel").rules.items() if rule in ("sum", "mean", "mintime"))
    with pytest.raises(PlanError, match="cannot be combined"):
        blend([{rule: 1.0}, {rule: "text"}])
