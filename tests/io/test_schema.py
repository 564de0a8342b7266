"""The keyword and HDU tables are those of `stdatamodels`, for every model."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
from asdf.tags.core.ndarray import asdf_datatype_to_numpy_dtype
from stdatamodels.jwst import datamodels

from jwstdask.core.errors import JwstdaskError
from jwstdask.io.schema import Node, is_model, model_files, model_schema

PUBLIC = sorted(name for name in model_files() if hasattr(datamodels, name))


def walk(schema, path=()):
    for name, child in schema.get("properties", {}).items():
        yield (*path, name), child
        yield from walk(child, (*path, name))


def test_all_public_models_are_known():
    classes = {
        name for name in datamodels.__all__ if isinstance(getattr(datamodels, name), type) and name.endswith("Model")
    }
    assert classes - set(model_files()) == set()


@pytest.mark.parametrize("name", PUBLIC)
def test_tables_of_every_model(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        merged = getattr(datamodels, name)().schema
    ours = model_schema(name)
    keywords = [
        (".".join(path), child.get("fits_hdu", "PRIMARY").upper(), child["fits_keyword"], child.get("type"))
        for path, child in walk(merged)
        if "fits_keyword" in child
    ]
    assert [(entry.name, entry.hdu, entry.keyword, entry.type) for entry in ours.keywords.values()] == keywords
    arrays = {
        child["fits_hdu"].lower(): (".".join(path), child)
        for path, child in walk(merged)
        if "fits_hdu" in child and "fits_keyword" not in child and {"datatype", "ndim", "max_ndim"} & set(child)
    }
    for key, (path, child) in arrays.items():
        entry = ours.arrays[key]
        assert (entry.attribute, entry.hdu) == (path, child["fits_hdu"])
        assert (entry.ndim, entry.max_ndim, entry.default) == (
            child.get("ndim"),
            child.get("max_ndim"),
            child.get("default"),
        )
        if "datatype" in child:
            assert entry.dtype == asdf_datatype_to_numpy_dtype(child["datatype"]).newbyteorder("=")
            assert entry.is_table == (entry.dtype.names is not None)


def test_lists_of_slits_and_spectra():
    slits = model_schema("MultiSlitModel")
    assert slits.list_name == "slits"
    assert {"sci", "dq", "err", "wavelength"} <= set(slits.item_arrays)
    assert slits.item_keywords["name"].keyword == "SLTNAME"
    assert slits.item_keywords["name"].hdu == "SCI"
    assert model_schema("ImageModel").list_name is None


def test_keyword_lookup():
    names = model_schema("ImageModel").by_keyword()
    assert names["PRIMARY", "EXP_TYPE"] == "meta.exposure.type"
    assert names["SCI", "RA_REF"] == "meta.wcsinfo.ra_ref"


@pytest.mark.parametrize(
    ("node", "good", "bad"),
    [
        (Node(type="integer"), [1, -5, "N/A", "", None], [1.5, True, "one"]),
        (Node(type="number"), [1, 1.5, "#TODO"], [False, "x"]),
        (Node(type="boolean"), [True, False], [1, "T"]),
        (Node(type="string", enum=("A", "B")), ["A"], ["C", 1, None]),
        (Node(type="string", alternatives=("1", "2")), ["2"], ["3"]),
        (Node(type="string", pattern="^a+$"), ["aaa"], ["b"]),
    ],
)
def test_allowed_values(node, good, bad):
    assert [value for value in good if node.problem(value)] == []
    assert [value for value in bad if not node.problem(value)] == []


def test_unknown_model():
    assert not is_model("NoSuchModel") and not is_model(None) and is_model("ImageModel")
    with pytest.raises(JwstdaskError, match="no data model is called NoSuchModel"):
        model_schema("NoSuchModel")


def test_stdatamodels_is_not_imported():
    code = (
        "import sys; from jwstdask.io.schema import model_schema; model_schema('ImageModel');"
        "print('stdatamodels' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_table_dtypes():
    dtype = model_schema("RampModel").arrays["int_times"].dtype
    assert dtype.names[0] == "integration_number" and dtype[0] == np.int32 and dtype[1] == np.float64
    assert model_schema("RampModel").arrays["group"].is_table
