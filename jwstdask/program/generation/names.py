"""Names of the products of associations.

Source: JWST documentation, "File naming conventions". What only the pipeline knows stays in braces: ``{source_id}``,
``{slit_name}``, ``{suffix}``.
"""

from __future__ import annotations

import re

from jwstdask.io.naming import remove_suffix
from jwstdask.program.generation.grouping import Group
from jwstdask.program.pool import UNSET, Row


def stem(expname: str) -> str:
    """File name without extension and known suffix."""
    return remove_suffix(re.sub(r"(?<=[^.])\.[^.]*$", "", expname))


def _bound(group: Group, name: str) -> str:
    """What the members agree in, with characters that are special in patterns escaped as the archive does."""
    return re.escape(group.bound.get(name, ("", ""))[1])


def target(group: Group) -> str:
    """``t001``; ``t000`` without target."""
    return f"t{_bound(group, 'no target') or _bound(group, 'target'):0>3s}"


def optical_elements(group: Group) -> str:
    """Filters, pupils and gratings in alphabetical order, ``clear`` if there are none."""
    return _elements(_bound(group, name) for name in ("opt_elem", "opt_elem2"))


def optical_elements_of(row: Row) -> str:
    """As :func:`optical_elements`, of one exposure; of MIRI the filter only."""
    values = row.values
    if values.get("instrume") == "miri":
        return _elements([values.get("filter", "")])
    pairs = (("filter", "band"), ("pupil", "grating"))
    return _elements(next(filter(None, map(row.given.get, columns)), "") for columns in pairs)


def _elements(values) -> str:
    return "-".join(sorted(value for value in values if value not in UNSET)) or "clear"


def _slits(group: Group) -> str:
    paired = "-".join(sorted(map(re.escape, group.slits)))
    return "".join(f"-{name}" for name in sorted({paired, _bound(group, "fxd_slit")} - {""}))


def _subarray(group: Group) -> str:
    name = _bound(group, "subarray")
    return "" if name in ("", "full") else f"-{name}"


def combined(group: Group, form: str = "", optics: str | None = None) -> str:
    """Name of the product of several exposures.

    Parameters
    ----------
    group
        The exposures.
    form
        ``""``: target, instrument, optical elements, slit and subarray; ``target``: without those after the
        instrument; ``source``: of each source; ``slit``: of each source and slit; ``coronagraphic image``;
        ``wavefront``: of a detector in one activity.
    optics
        Optical elements, if they are not those of the group.
    """
    program = f"{group.first.values.get('program', ''):0>5s}"
    prefix = f"jw{program}-{group.candidate.id}"
    instrument = _bound(group, "instrument")
    optics = optical_elements(group) if optics is None else optics
    rest = f"{instrument}_{optics}"
    subarray, slits = _subarray(group), _slits(group)
    name = {
        "": f"{prefix}_{target(group)}_{rest}{slits}{subarray}",
        "target": f"{prefix}_{target(group)}_{instrument}",
        "source": f"{prefix}_{{source_id}}_{rest}{slits}{subarray}",
        "slit": f"{prefix}_{target(group)}-{{source_id}}_{rest}-{{slit_name}}{subarray}",
        "coronagraphic image": f"{prefix}_{target(group)}_{rest}{subarray}-image3",
        "wavefront": f"{prefix}_{target(group)}_{rest}{slits}{subarray}-{_bound(group, 'detector')}_{{suffix}}-"
        f"{_bound(group, 'act_id'):0>2s}",
    }[form]
    return name.lower()
