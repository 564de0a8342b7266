"""Context, parameters and references from the header of somebody's product, to make the same again.

jwst writes the log of each pipeline into the ASDF extension (``cal_logs``), and in it the parameters of all its steps;
a record that contains the name of the user or host is blanked there. The header states the context, the references of
every step that ran, and which steps were skipped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from jwstdask.core.errors import InputError, ParameterError
from jwstdask.core.params import coerce, declared
from jwstdask.core.pipeline import Pipeline
from jwstdask.core.plan import ExposurePlan
from jwstdask.core.settings import Layer, Settings
from jwstdask.core.step import Parameters
from jwstdask.io.layout import open_layout
from jwstdask.io.metadata import read_asdf_tree, read_metadata
from jwstdask.pipelines.configure import step_names
from jwstdask.pipelines.planner import PARITY_VERSION
from jwstdask.refs.crds import reference_path
from jwstdask.steps.registry import step_class

_PARAMETERS = re.compile(r"\bStep \w+ parameters are:\s*\n(?P<values>.*)", re.DOTALL)
_CRDS = "crds://"
_NOT_MATCHED = frozenset(Parameters.__dataclass_fields__) - {"skip"}
"""Parameters that say where files go, not what is in them."""


@dataclass
class Match:
    """What a product's header says of how it was made.

    Attributes
    ----------
    path
        The product.
    context
        CRDS context; empty if it is not stated.
    references
        Reference type to the name in the header.
    meta
        Metadata of the product.
    logs
        Pipeline or step alias to its log.
    notes
        What cannot be matched.
    """

    path: str
    context: str
    references: Mapping[str, str]
    meta: Mapping[str, Any]
    logs: Mapping[str, Sequence[str]]
    notes: list[str] = field(default_factory=list)

    @property
    def origin(self) -> str:
        return os.path.basename(self.path)

    def layer(self, target: type) -> Layer:
        """Parameters of a pipeline or step as they were; notes tell what is not known of them."""
        alias: str = target.alias  # type: ignore[attr-defined]
        recorded = self._recorded(alias)
        if recorded is None:
            return self._from_states(target)
        own, steps = recorded
        named = step_names(target) if issubclass(target, Pipeline) else {}
        parameters = self._known(target, own, alias)
        for name in sorted(set(steps) - set(named)):
            self.notes.append(f"{alias} has no step {name}: what was set for it is left out")
        found = {
            name: self._known(step_class(named[name]), values, name) for name, values in steps.items() if name in named
        }
        return Layer(self.origin, parameters, found)

    def _recorded(self, alias: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]] | None:
        for record in self.logs.get(alias, ()):
            found = _PARAMETERS.search(record)
            if found is None:
                continue
            try:
                values = yaml.safe_load(found["values"])
            except yaml.YAMLError:
                continue
            if isinstance(values, dict):
                steps = values.pop("steps", None) or {}
                return values, steps
        return None

    def _known(self, cls: type, values: Mapping[str, Any], owner: str) -> dict[str, Any]:
        """The parameters that this version has too, and can take."""
        found = {}
        known = declared(cls)
        for name, text in values.items():
            value = None if text == "None" else text
            if name in _NOT_MATCHED or name.startswith("override_"):
                continue
            if name not in known:
                self.notes.append(f"{owner} has no parameter {name} (it was {value!r})")
                continue
            try:
                coerce(cls, name, value, owner)
            except ParameterError as error:
                self.notes.append(f"{error.message}: left out")
                continue
            found[name] = value
        return found

    def _from_states(self, target: type) -> Layer:
        """Without recorded parameters: steps that were skipped are skipped, those that were done are done."""
        if not issubclass(target, Pipeline):
            self.notes.append(f"the parameters of {target.alias} are not recorded")  # type: ignore[attr-defined]
            return Layer(self.origin)
        states = {
            name: self.meta.get(f"meta.cal_step.{step_class(alias).status}")
            for name, alias in step_names(target).items()
        }
        known = ("COMPLETE", "SKIPPED")
        steps = {name: {"skip": state == "SKIPPED"} for name, state in states.items() if state in known}
        if steps and target.stage == 1:
            # jwst writes no keyword where dark_current is skipped; versions before knew fewer steps.
            steps |= {name: {"skip": True} for name, state in states.items() if state not in known}
        if steps:
            self.notes.append(
                f"the parameters of {target.alias} are not recorded: only which of its steps were done is matched"
            )
        return Layer(self.origin, {}, steps)

    def overrides(self, plans: Sequence[ExposurePlan]) -> dict[str, dict[str, str]]:
        """References that the product was made with where other ones are planned.

        Parameters
        ----------
        plans
            Plans of exposures of the product's detector; of others, nothing is matched.

        Returns
        -------
        overrides
            Step name to ``override_TYPE`` to the path in the cache.
        """
        detector = self.meta.get("meta.instrument.detector")
        others = {plan.detector for plan in plans if plan.error is None} - {detector}
        if others:
            names = ", ".join(sorted(others))
            self._note(f"references are those of the context: it is {detector}, there are exposures of {names}")
            return {}
        found: dict[str, dict[str, str]] = {}
        for plan in plans:
            for item in plan.active:
                for kind, path in item.references.items():
                    there = self._other(kind, path)
                    if there is not None:
                        found.setdefault(item.name, {})[f"override_{kind}"] = there
        return found

    def _other(self, kind: str, path: str | None) -> str | None:
        """Path of the reference of a type in the product, if it is not the one planned."""
        stated = self.references.get(kind)
        planned = "N/A" if path is None else os.path.basename(path)
        if stated is None:
            return None
        name = stated if stated == "N/A" else os.path.basename(stated.removeprefix(_CRDS))
        if name == planned:
            return None
        if name == "N/A":
            self._note(f"{kind}: the product was made without one, {planned} is used")
            return None
        if not stated.startswith(_CRDS):
            self._note(f"{kind}: {name} was a file of the user's own, {planned} is used; give it by override_{kind}")
            return None
        there, present = reference_path(name)
        if not present:
            self._note(
                f"{kind}: {name} is not in the cache, {planned} is used; fetch it with `crds sync --files {name}`"
            )
            return None
        return there

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def read_match(path: str) -> Match:
    """What a product says of how it was made.

    Raises
    ------
    InputError
        If it is no product of a pipeline.
    """
    layout = open_layout(path)
    meta = read_metadata(layout, complete=True)
    context = str(meta.get("meta.ref_file.crds.context_used") or "")
    version = meta.get("meta.calibration_software_version")
    if not context and version is None:
        raise InputError(path, "CRDS_CTX and CAL_VER are missing: no pipeline has made it", "give a product")
    references = {
        name.split(".")[2]: str(value)
        for name, value in meta.items()
        if name.startswith("meta.ref_file.") and name.endswith(".name") and value
    }
    logs = read_asdf_tree(layout).get("cal_logs") or {}
    logs = {alias: [str(line) for line in lines] for alias, lines in logs.items() if isinstance(lines, list)}
    match = Match(path, context, references, meta, logs)
    if not context:
        match.notes.append("it does not state its CRDS context")
    if version != PARITY_VERSION:
        match.notes.append(f"it was made by version {version} of jwst; products equal those of {PARITY_VERSION}")
    return match


def matched(match: Match, target: type, settings: Settings) -> Settings:
    """A request with what is known of a product below all that the user says."""
    context = settings.context or match.context or None
    return replace(settings, layers=(match.layer(target), *settings.layers), context=context)


def with_overrides(settings: Settings, match: Match, target: type, plans: Sequence[ExposurePlan]) -> Settings | None:
    """The request with the product's references where the plans have others; None if they have the same."""
    found = match.overrides(plans)
    if not found:
        return None
    if issubclass(target, Pipeline):
        layer = Layer(match.origin, {}, found)
    else:
        layer = Layer(match.origin, next(iter(found.values())))
    return replace(settings, layers=(layer, *settings.layers))
