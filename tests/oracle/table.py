"""The parity table: rows that the tests recorded, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

START, END = "<!-- parity table -->", "<!-- end -->"
HEAD = (
    "pipeline or step",
    "mode",
    "product",
    "values",
    "identical",
    "largest difference [ERR]",
    "largest relative",
    "flags that differ",
    "keywords and tables that differ",
)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return "0" if value == 0 else f"{value:.1e}"


def _share(different: int, values: int) -> str:
    if not values:
        return ""
    return "100 %" if not different else f"{min(100 * (1 - different / values), 99.9999):.4f} %"


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Markdown table; rows of the same pipeline, mode and product are merged."""
    merged: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        key = row["pipeline"], row["mode"], row["product"]
        into = merged.setdefault(
            key, {"values": 0, "different": 0, "relative": 0.0, "sigma": None, "flags": None, "header": 0}
        )
        for name in ("values", "different", "header"):
            into[name] += row[name]
        into["relative"] = max(into["relative"], row["relative"])
        for name, merge in (("sigma", max), ("flags", int.__add__)):
            if row[name] is not None:
                into[name] = row[name] if into[name] is None else merge(into[name], row[name])
    lines = ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
    for (pipeline, mode, product), found in sorted(merged.items()):
        cells = (
            pipeline,
            mode,
            product,
            f"{found['values']:,}",
            _share(found["different"], found["values"]),
            _number(found["sigma"]),
            _number(found["relative"]),
            "" if found["flags"] is None else str(found["flags"]),
            str(found["header"]),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


SUMMARY = ("pipeline", "mode", "products", *HEAD[3:])


def summary(rows: Iterable[Mapping[str, Any]]) -> str:
    """The table in short: a line for each pipeline and mode, and for what is resampled."""
    rows = [dict(row) for row in rows]
    for row in rows:
        alone = not row["pipeline"].startswith("calwebb_")
        row["products"] = row["pipeline"] if alone else row["product"]
        row["pipeline"] = "single steps" if alone else row["pipeline"]
        row["group"] = row["product"] in ("i2d", "resample", "cat")
    names: dict[tuple, list[str]] = {}
    for row in rows:
        key = row["pipeline"], row["mode"], row["group"]
        names.setdefault(key, []).append(row["products"])
    for row in rows:
        row["product"] = ", ".join(dict.fromkeys(sorted(names[row["pipeline"], row["mode"], row["group"]])))
    lines = table(rows).splitlines()
    return "\n".join(["| " + " | ".join(SUMMARY) + " |", *lines[1:]])


def write_readme(path: Path, text: str) -> bool:
    """Put the table between the markers of the README; False if it has none."""
    content = path.read_text()
    if START not in content or END not in content[content.index(START) :]:
        return False
    head, rest = content.split(START, 1)
    tail = rest.split(END, 1)[1]
    path.write_text(f"{head}{START}\n{text}\n{END}{tail}")
    return True
