"""The report of a run: one HTML file without references to others, made from the journal or from outcomes.

The page holds its data as JSON, and a script that shows them by pages. A content security policy names the script and
the style by their digests and allows nothing else: whatever names, headers and errors hold, nothing of it is run, and
nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jwstdask import __version__
from jwstdask.core.errors import JwstdaskError
from jwstdask.core.plan import AssociationPlan, ExposurePlan, Outcome
from jwstdask.io.product import make_folder
from jwstdask.io.remote import is_url, join
from jwstdask.io.temporary import replacing
from jwstdask.program.journal import program_records
from jwstdask.report.data import ReportData, document, finite, of_outcomes, read_program, totals
from jwstdask.report.quicklook import thumbnail

THUMBNAILS = 200
"""Exposures with pictures; a report of thousands must still open in a browser."""
_PICTURE_BYTES = 10_000_000
"""Of all pictures together, encoded."""
_ALL_KINDS = 40
"""Exposures up to which there are pictures of all stages, not of the last one only."""
_MOSAICS = 40
_HERE = Path(__file__).parent


def write_report(
    path: str | os.PathLike[str],
    plans: Sequence[ExposurePlan],
    associations: Sequence[AssociationPlan],
    outcomes: Sequence[Outcome],
) -> str:
    """Write the report of a run of which there is no journal.

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
    path = os.fspath(path)
    folder = os.path.dirname(path if is_url(path) else os.path.abspath(path))
    return write_page(path, of_outcomes(folder, plans, associations, outcomes))


def write_program_report(folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> str:
    """Write the report of the program whose products are in a folder, from its journal.

    Parameters
    ----------
    folder
        Folder of the products.
    path
        HTML file; ``report.html`` in the folder by default.

    Returns
    -------
    path
    """
    return write_page(join(os.fspath(folder), "report.html") if path is None else path, read_program(folder))


def write_run_report(
    path: str | os.PathLike[str],
    folder: str | None,
    plans: Sequence[ExposurePlan],
    associations: Sequence[AssociationPlan],
    outcomes: Sequence[Outcome],
) -> str:
    """Write the report at the end of a run: from the journal of its folder, or without one from its outcomes."""
    if folder is not None and has_journal(folder):
        return write_program_report(folder, path)
    return write_report(path, plans, associations, outcomes)


def has_journal(folder: str | os.PathLike[str]) -> bool:
    """Whether there is a journal of the products in a folder or at a URL."""
    return next(program_records(folder), None) is not None


def write_page(
    path: str | os.PathLike[str],
    data: ReportData,
    comparison: Mapping[str, Any] | None = None,
    thumbnails: int = THUMBNAILS,
) -> str:
    """Write the page.

    Parameters
    ----------
    path
        HTML file; replaced if it exists.
    data
        The program.
    comparison
        From `jwstdask.report.data.compare`, with ``lines`` about changed products.
    thumbnails
        Most exposures with pictures.

    Returns
    -------
    path
    """
    from jinja2 import Environment

    path = os.fspath(path)
    content = document(data, os.path.dirname(path if is_url(path) else os.path.abspath(path)))
    content["pictures"], content["mosaics"] = _pictures(data, thumbnails)
    content["comparison"] = comparison
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    text = environment.from_string((_HERE / "template.html").read_text(encoding="utf-8")).render(
        title=os.path.basename(data.folder.rstrip("/")) or data.folder,
        date=time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(data.now)),
        version=__version__,
        context=content["run"]["context"] or "none",
        totals=totals(content),
        style=style,
        script=script,
        style_digest=digest(style),
        script_digest=digest(script),
        data=embedded(content),
    )
    make_folder(path)
    with replacing(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    return path


def embedded(content: Any) -> str:
    """JSON that can stand in a script element: no character in it has a meaning in HTML."""
    text = json.dumps(finite(content), separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def digest(text: str) -> str:
    """Source expression of a content security policy for an element with this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _pictures(data: ReportData, most: int) -> tuple[dict[str, list[list[str]]], dict[str, str]]:
    """Kind and picture of products by exposure, and of mosaics by association."""
    tasks = [task for task in data.current() if task.state in ("done", "up to date")]
    exposures: dict[str, dict[str, str]] = {}
    mosaics: dict[str, str] = {}
    for task in tasks:
        paths = {kind: os.path.join(data.folder, entry[0]) for kind, entry in task.products.items()}
        if task.members is None:
            shown = {kind: path for kind, path in paths.items() if kind in ("rate", "cal")}
            shown = shown or {kind: path for kind, path in paths.items() if kind in ("rateints", "calints")}
            exposures.setdefault(task.label, {}).update(shown)
        elif "i2d" in paths and len(mosaics) < _MOSAICS:
            picture = _picture(paths["i2d"], paths.get("cat"), 900)
            if picture is not None:
                mosaics[task.label] = picture
    names = [name for name, kinds in exposures.items() if kinds]
    step = max(-(-len(names) // max(most, 1)), 1)
    chosen = names[::step] if most else []
    found: dict[str, list[list[str]]] = {}
    left = _PICTURE_BYTES
    for name in chosen:
        kinds = list(exposures[name].items())
        side = 300 if len(names) <= _ALL_KINDS else 160
        for kind, path in kinds if len(names) <= _ALL_KINDS else kinds[-1:]:
            picture = _picture(path, None, side)
            if picture is not None and len(picture) <= left:
                left -= len(picture)
                found.setdefault(name, []).append([kind, picture])
    return found, mosaics


def _picture(path: str, catalog: str | None, side: int) -> str | None:
    """A picture of a product; None if it cannot be read (any more)."""
    if is_url(path) or not os.path.exists(path):
        return None
    try:
        return thumbnail(path, catalog if catalog is not None and os.path.exists(catalog) else None, side)
    except (JwstdaskError, OSError, ValueError, KeyError):
        return None
