"""Parameters of a pipeline and its steps, from the layers that give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jwstdask.core.errors import ParameterError, ProductError
from jwstdask.core.params import build, coerce, declared, suggest
from jwstdask.core.pipeline import Pipeline
from jwstdask.core.settings import Layer
from jwstdask.core.step import Step
from jwstdask.io.naming import file_name
from jwstdask.steps.registry import step_class

OVERRIDE = "override_"
"""Beginning of the parameters that name a reference."""


@dataclass(frozen=True)
class Configured:
    """Parameters of a pipeline or step, resolved for one exposure."""

    parameters: Any
    origins: Mapping[str, str]
    steps: Mapping[str, Step]
    step_origins: Mapping[str, Mapping[str, str]]
    overrides: Mapping[str, Mapping[str, str]]
    name: str = ""


def step_names(target: type) -> dict[str, str]:
    """Step name to alias, of a pipeline or of a step that runs alone."""
    if issubclass(target, Pipeline):
        return dict(target.step_defs)
    return {target.alias: target.alias}


def check_layers(target: type, layers: Iterable[Layer]) -> None:
    """Refuse unknown names, wrong types and values out of range before anything is opened.

    Raises
    ------
    ParameterError
        With the nearest right name.
    """
    names = step_names(target)
    for layer in layers:
        for name, value in layer.parameters.items():
            _check(target, name, value, target.alias, layer.origin)
        for step, parameters in layer.steps.items():
            if not issubclass(target, Pipeline) or step not in names:
                raise ParameterError(f"{target.alias} has no step {step!r} (from {layer.origin})", suggest(step, names))
            for name, value in parameters.items():
                _check(step_class(names[step]), name, value, step, layer.origin)


def _check(cls: type, name: str, value: Any, owner: str, origin: str) -> None:
    if name.startswith(OVERRIDE):
        reftype = name[len(OVERRIDE) :]
        allowed = getattr(cls, "reference_types", ())
        if reftype not in allowed:
            known = [OVERRIDE + item for item in allowed]
            remedy = suggest(name, known or declared(cls))
            raise ParameterError(f"{owner} has no parameter {name!r} (from {origin})", remedy)
        return
    try:
        found = coerce(cls, name, value, owner)
        if name == "output_ext" and found.lstrip(".").lower() != "fits":
            raise ParameterError(f"{owner}.output_ext is {found!r}: products are FITS files", "Leave it at .fits.")
        if name == "suffix" and found:
            file_name(found, "suffix")
        if name == "input_dir" and found:
            raise ParameterError(
                f"{owner}.input_dir is not available: inputs are sought where their paths say, members beside their "
                "association",
                "Give the folder in the paths.",
            )
    except ParameterError as error:
        raise ParameterError(f"{error.message} (from {origin})", error.remedy) from None
    except ProductError as error:
        raise ParameterError(f"{owner}.{name} (from {origin}): {error.message}", error.remedy) from None


def refuse_hooks(layers: Iterable[Layer]) -> None:
    """Hooks work on Datasets in memory; between files there are none.

    Raises
    ------
    ParameterError
        If there are any.
    """
    for layer in layers:
        for parameters in (layer.parameters, *layer.steps.values()):
            for name in ("pre_hooks", "post_hooks"):
                if parameters.get(name) not in (None, (), [], "", "[]"):
                    raise ParameterError(
                        f"{name} (from {layer.origin}) cannot be used from file to file",
                        "Call the pipeline or step from Python: its .call runs hooks on the Dataset.",
                    )


def configure(target: type, layers: Sequence[Layer]) -> Configured:
    """Parameters of ``target`` and its steps from layers, lowest precedence first."""
    names = step_names(target)
    parameters, origins = build(target, [(layer.origin, _plain(layer.parameters)) for layer in layers], target.alias)
    steps, step_origins, overrides = {}, {}, {}
    for name, alias in names.items():
        if issubclass(target, Pipeline):
            own = [(layer.origin, layer.steps.get(name, {})) for layer in layers]
        else:
            own = [(layer.origin, layer.parameters) for layer in layers]
        steps[name], step_origins[name] = build(
            step_class(alias), [(origin, _plain(values)) for origin, values in own], name
        )
        overrides[name] = {
            key[len(OVERRIDE) :]: str(value)
            for _, values in own
            for key, value in values.items()
            if key.startswith(OVERRIDE) and value is not None
        }
    name = next((layer.name for layer in reversed(layers) if layer.name), target.class_name)  # type: ignore[attr-defined]
    return Configured(parameters, origins, steps, step_origins, overrides, name)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.startswith(OVERRIDE)}
