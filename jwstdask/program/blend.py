"""Metadata of a product made from several exposures: combined keywords and a header table.

The rules stand in the schemas of ``stdatamodels``: ``blend_rule`` says how a keyword is combined (a keyword without a
rule keeps the first exposure's value), ``blend_table`` which keywords get a column of the header table (``HDRTAB``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jwstdask.core.errors import PlanError
from jwstdask.io.schema import _document, _resolve, model_files

OUTSIDE = "outside calibration tolerance"


def _common(values: Sequence[Any]) -> Any:
    """The value they share, or MULTIPLE."""
    return values[0] if all(value == values[0] for value in values[1:]) else "MULTIPLE"


def _wheel(values: Sequence[Any]) -> str:
    """Whether any filter wheel stood outside its tolerance."""
    return OUTSIDE if OUTSIDE in values else "within commanded tolerance"


def _number(reduce: Callable[[Any], Any]) -> Callable[[Sequence[Any]], Any]:
    def combine(values: Sequence[Any]) -> Any:
        result = reduce(np.array(values))
        return result.item() if hasattr(result, "item") else result

    return combine


RULES: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "multi": _common,
    "mean": _number(np.mean),
    "sum": _number(np.sum),
    "max": _number(np.max),
    "min": _number(np.min),
    "wheeltol": _wheel,
    # Dates and times are ISO 8601 text: their order as text is that in time.
    **{f"min{kind}": min for kind in ("date", "time", "datetime")},
    **{f"max{kind}": max for kind in ("date", "time", "datetime")},
}
"""Name of a blend rule to the function of the exposures' values."""


class BlendSchema:
    """Blend rules of one data model.

    Attributes
    ----------
    rules
        Dotted name to the name of its rule.
    columns
        Dotted name to its column in the header table, in the order of the schema.
    lists
        Dotted names of lists, which are left out.
    """

    def __init__(self, model: str) -> None:
        self.rules: dict[str, str] = {}
        self.columns: dict[str, str] = {}
        self.lists: list[str] = []
        name = model_files().get(model)
        if name is None:
            raise PlanError(f"stdatamodels has no data model called {model}")
        tree: dict[str, Any] = {}
        self._walk(_document(name), name, (), tree)
        # A schema in several parts adds to the same node more than once: columns go by the merged tree.
        self.columns = {name: self.columns[name] for name in _flat(tree) if name in self.columns}

    def _walk(self, schema: Mapping[str, Any], document: str, path: tuple[str, ...], tree: dict) -> None:
        schema, document = _resolve(dict(schema), document)
        if path and path[0] != "meta":
            return
        children = schema.get("properties", {})
        if len(path) > 1 and not children:
            name = ".".join(path)
            if schema.get("type") == "array":
                self.lists.append(name)
                return
            if "blend_rule" in schema:
                self.rules[name] = schema["blend_rule"]
            if schema.get("blend_table"):
                self.columns[name] = schema.get("fits_keyword", name)
        for combined in ("allOf", "anyOf", "oneOf"):
            for part in schema.get(combined, ()):
                self._walk(part, document, path, tree)
        for child, node in children.items():
            self._walk(node, document, (*path, child), tree.setdefault(child, {}))


def _flat(tree: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Dotted names of the leaves of a tree, depth first."""
    for name, branch in tree.items():
        if branch:
            yield from _flat(branch, f"{path}{name}.")
        else:
            yield path + name


@cache
def blend_schema(model: str) -> BlendSchema:
    """Blend rules of a data model class such as ``ImageModel``."""
    return BlendSchema(model)


def blend(
    metas: Sequence[Mapping[str, Any]], ignore: Sequence[str] = (), model: str = "ImageModel"
) -> tuple[dict[str, Any], NDArray]:
    """Combine the metadata of exposures.

    Parameters
    ----------
    metas
        Metadata under jwst's dotted names, in the order of the association.
    ignore
        Beginnings of names to leave out of the result (not of the table).
    model
        Data model of the exposures, whose schema gives the rules.

    Returns
    -------
    meta, table
        Combined metadata and the header table, a structured array with one row an exposure: text as ASCII bytes,
        logical values as int8, missing ones as NaN (``nan`` in columns of text). Columns without any value are left
        out.

    Raises
    ------
    PlanError
        If there is nothing to combine, or the values of a keyword cannot be.
    """
    if not metas:
        raise PlanError("no exposures whose metadata could be combined")
    schema = blend_schema(model)
    left_out = ("meta.wcs", *ignore, *schema.lists)

    def kept(name: str) -> bool:
        # This leaves out meta.wcsinfo too: the product has a WCS of its own.
        return name.startswith("meta.") and not name.startswith(left_out)

    combined = {name: value for name, value in metas[0].items() if kept(name) and value is not None}
    for name, rule in schema.rules.items():
        if rule == "first" or name.startswith(left_out):
            continue
        values = [meta[name] for meta in metas if meta.get(name) is not None]
        if not values:
            continue
        try:
            combined[name] = RULES[rule](values)
        except (TypeError, ValueError) as error:
            raise PlanError(f"{name} cannot be combined by {rule!r} from {values}") from error
    return combined, header_table(metas, schema.columns)


def header_table(metas: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> NDArray:
    """One row an exposure of the keywords in ``columns`` (dotted name to column name)."""
    fields = []
    for name, column in columns.items():
        values = [meta.get(name) for meta in metas]
        if all(value is None for value in values):
            continue
        array = np.array([np.nan if value is None else value for value in values])
        if array.dtype.kind == "U":
            array = np.char.encode(array, "ascii", "replace")
        elif array.dtype.kind == "b":
            array = array.astype(np.int8)
        fields.append((column, array))
    table = np.empty(len(metas), dtype=[(column, array.dtype) for column, array in fields])
    for column, array in fields:
        table[column] = array
    return table
