"""The report of a run: one self-contained HTML file."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jwstdask import __version__
from jwstdask.core.plan import AssociationPlan, ExposurePlan, Outcome
from jwstdask.io.product import make_folder
from jwstdask.io.remote import is_url, publish
from jwstdask.io.temporary import temporary_path
from jwstdask.report.quicklook import thumbnail

_SHOWN = ("rate", "cal", "i2d")
_MOST_THUMBNAILS = 200
"""Exposures with thumbnails; a report of thousands must still open in a browser."""


@dataclass
class Row:
    """One outcome as the template shows it."""

    name: str
    pipeline: str
    state: str
    error: str = ""
    traceback: str = ""
    wall: str = ""
    cpu: str = ""
    memory: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)
    products: list[dict[str, str]] = field(default_factory=list)
    pictures: list[dict[str, str]] = field(default_factory=list)
    parameters: list[dict[str, str]] = field(default_factory=list)
    references: list[str] = field(default_factory=list)


def write_report(
    path: str | os.PathLike[str],
    plans: Sequence[ExposurePlan],
    associations: Sequence[AssociationPlan],
    outcomes: Sequence[Outcome],
) -> str:
    """Write the report.

    Parameters
    ----------
    path
        HTML file; replaced if it exists.
    plans, associations
        What was to be done.
    outcomes
        What became of it.

    Returns
    -------
    path
    """
    from jinja2 import Environment

    path = os.fspath(path)
    folder = os.path.dirname(path if is_url(path) else os.path.abspath(path))
    known: dict[tuple[str, str], ExposurePlan | AssociationPlan] = {(plan.pipeline, plan.path): plan for plan in plans}
    known |= {(plan.pipeline, plan.name): plan for plan in associations}
    rows = [
        _row(outcome, known.get((outcome.pipeline, outcome.path)), folder, index < _MOST_THUMBNAILS)
        for index, outcome in enumerate(outcomes)
    ]
    contexts = sorted({plan.context for plan in (*plans, *associations) if plan.context})
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (Path(__file__).parent / "template.html").read_text()
    )
    text = template.render(
        rows=rows,
        done=sum(row.state == "done" for row in rows),
        failed=[row for row in rows if row.state != "done"],
        mosaics=[row for row in rows if row.pipeline == "calwebb_image3"],
        contexts=", ".join(contexts) or "none",
        version=__version__,
        date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        cpu=_seconds(sum(outcome.cpu for outcome in outcomes)),
        slowest=_slowest(outcomes),
    )
    make_folder(path)
    temporary = temporary_path(path)
    Path(temporary).write_text(text, encoding="utf-8")
    publish(temporary, path)
    return path


def _relative(path: str, folder: str) -> str:
    """Where a product is, seen from the folder of the report."""
    if is_url(path) or is_url(folder):
        return path.removeprefix(f"{folder}/")
    return os.path.relpath(path, folder)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def _slowest(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Steps by their share of the CPU time, the costliest first."""
    total: dict[str, float] = {}
    for outcome in outcomes:
        for record in outcome.steps:
            total[record.name] = total.get(record.name, 0.0) + record.seconds
    whole = sum(total.values()) or 1.0
    ordered = sorted(total.items(), key=lambda item: -item[1])
    return [
        {"name": name, "seconds": _seconds(value), "share": 100 * value / whole}
        for name, value in ordered
        if value > 0.005 * whole
    ]


def _row(outcome: Outcome, plan: ExposurePlan | AssociationPlan | None, folder: str, pictured: bool) -> Row:
    row = Row(
        os.path.basename(outcome.path),
        outcome.pipeline,
        "failed" if outcome.error is not None else "done",
        outcome.error or "",
        outcome.traceback,
        _seconds(outcome.wall),
        _seconds(outcome.cpu),
        f"{outcome.memory / 1e6:.0f} MB",
    )
    row.steps = [
        {"name": item.name, "status": item.status, "reason": item.reason, "seconds": _seconds(item.seconds)}
        for item in outcome.steps
    ]
    crf = [name for name in outcome.products if name.startswith("crf:")]
    for kind, path in outcome.products.items():
        if kind not in crf:
            row.products.append({"kind": kind, "path": _relative(path, folder)})
    if crf:
        row.products.append({"kind": f"crf ({len(crf)} files)", "path": _relative(outcome.products[crf[0]], folder)})
    catalog = outcome.products.get("cat")
    for kind in _SHOWN if pictured else ():
        if kind in outcome.products and os.path.exists(outcome.products[kind]):
            mosaic = catalog is not None and kind == "i2d"
            source = thumbnail(outcome.products[kind], catalog if mosaic else None, 900 if mosaic else 300)
            row.pictures.append({"kind": kind, "source": source})
    if plan is not None:
        for item in plan.active:
            defaults = type(item.step)()
            for name, origin in item.origins.items():
                value = getattr(item.step, name)
                if value != getattr(defaults, name):
                    row.parameters.append({"name": f"{item.name}.{name}", "value": repr(value), "origin": origin})
        references = {path for item in plan.active for path in item.references.values() if path}
        row.references = sorted(os.path.basename(path) for path in references)
    return row
