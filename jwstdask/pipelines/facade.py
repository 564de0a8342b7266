"""The public classes: jwst's own names and ways to run (``.call``, ``.run``, ``from_cmdline``) over the tables.

A facade is a plain object whose attributes are parameters, so that scripts written for jwst work: ``step =
JumpStep(); step.rejection_threshold = 5; step.run(exposure)``. As in jwst, ``.call`` uses CRDS parameter references
and makes a new instance, and ``.run`` uses the attributes of the instance and no parameter references.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import xarray as xr

from jwstdask.core.errors import JwstdaskError, PlanError
from jwstdask.core.params import coerce, declared, suggest
from jwstdask.core.pipeline import Pipeline
from jwstdask.core.settings import Layer, Settings
from jwstdask.engine.executor import Executor, Threads
from jwstdask.io.dataset import open_exposure
from jwstdask.pipelines.associate import combines, plan_association
from jwstdask.pipelines.planner import Request, level2_request, plan_exposures, step_names
from jwstdask.pipelines.registry import find
from jwstdask.pipelines.run import run_associations, run_chains
from jwstdask.program.associations import Association, Product, read_association
from jwstdask.refs.parameters import read_parameters
from jwstdask.steps.registry import step_class

Exposures = Any
"""A path, an association file, a Dataset, or a list of paths."""


def file_layer(path: str | os.PathLike[str]) -> Layer:
    """A user's parameter file (.asdf or .cfg) as a layer."""
    found = read_parameters(path)
    steps = {name: dict(part.parameters) for name, part in found.steps.items()}
    return Layer(os.path.basename(os.fspath(path)), dict(found.parameters), steps)


class Facade:
    """Base of the public step and pipeline classes."""

    target: ClassVar[type]

    def __init__(self, **parameters: Any) -> None:
        cls = type(self)
        object.__setattr__(self, "_values", {})
        object.__setattr__(self, "_steps", {})
        if issubclass(cls.target, Pipeline):
            for name, alias in step_names(cls.target).items():
                self._steps[name] = facade(step_class(alias))()
        steps = parameters.pop("steps", {})
        for name, values in steps.items():
            if name not in self._steps:
                raise PlanError(f"{cls.__name__} has no step {name!r}", suggest(name, self._steps))
            for key, value in values.items():
                setattr(self._steps[name], key, value)
        for name, value in parameters.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        steps, values = self.__dict__.get("_steps", {}), self.__dict__.get("_values", {})
        if name in steps:
            return steps[name]
        if name in values:
            return values[name]
        known = declared(type(self).target)
        if name in known:
            return known[name][2]
        raise AttributeError(f"{type(self).__name__} has no parameter {name!r}. {suggest(name, [*known, *steps])}")

    def __setattr__(self, name: str, value: Any) -> None:
        target = type(self).target
        if name.startswith("override_"):
            self._values[name] = value
        else:
            self._values[name] = coerce(target, name, value, target.alias)  # type: ignore[attr-defined]

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *declared(type(self).target), *self._steps})

    def __repr__(self) -> str:
        changed = ", ".join(f"{name}={value!r}" for name, value in self._values.items())
        return f"{type(self).__name__}({changed})"

    @classmethod
    def call(
        cls,
        exposures: Exposures,
        *,
        config_file: str | os.PathLike[str] | None = None,
        steps: Mapping[str, Mapping[str, Any]] | None = None,
        context: str | None = None,
        executor: Executor | None = None,
        **parameters: Any,
    ) -> Any:
        """Process exposures with a new instance, CRDS parameter references applied.

        Parameters
        ----------
        exposures
            A path or URL, an association file, a Dataset, or a list of paths.
        config_file
            Parameter file (.asdf or .cfg).
        steps
            Step name to its parameters.
        context
            CRDS context.
        executor
            Where it runs; on dask's threads in this process by default.
        **parameters
            Of the pipeline or step, such as ``save_results=True`` and ``output_dir="d"``.

        Returns
        -------
        xarray.Dataset or list of them
            The product; for ramp_fit the pair of rate and rateints, for calwebb_image2 a list, for Stage 3 pipelines
            None (their products are files).

        Raises
        ------
        ParameterError, InputError, ReferenceFileError, StepError, ProductError
            What went wrong, with the exposure and the remedy.
        """
        layers = [] if config_file is None else [file_layer(config_file)]
        layers.append(Layer("call", parameters, steps or {}))
        return _process(cls.target, exposures, Settings(tuple(layers), context=context), executor)

    def run(self, exposures: Exposures) -> Any:
        """Process exposures with this instance's parameters; CRDS parameter references are not used."""
        steps = {name: step._values for name, step in self._steps.items() if step._values}
        settings = Settings((Layer("instance", self._values, steps),), parameter_references=False)
        return _process(type(self).target, exposures, settings, None)

    __call__ = run

    def get_pars(self) -> dict[str, Any]:
        """All parameters by name; those of the steps under ``steps``."""
        found: dict[str, Any] = {name: getattr(self, name) for name in declared(type(self).target)}
        if self._steps:
            found["steps"] = {name: step.get_pars() for name, step in self._steps.items()}
        return found

    @classmethod
    def from_cmdline(cls, args: Sequence[str]) -> Any:
        """Process as ``jwstdask run CLASS ARGS...`` does.

        Raises
        ------
        JwstdaskError
            If an exposure fails.
        """
        from jwstdask.cli.main import main

        name = cls.target.alias  # type: ignore[attr-defined]
        if main(["run", name, *args]) != 0:
            raise JwstdaskError(f"{name} failed", "see the messages above")


@cache
def facade(target: type) -> type[Facade]:
    """The public class over a pipeline or step."""
    facts = "\n".join(f"    {name}: {kind} = {default!r}\n        {par.doc}" for name, (kind, par, default) in declared(target).items())
    doc = f"{target.__doc__}\n\n    Parameters\n    ----------\n{facts}\n"
    return type(target.class_name, (Facade,), {"target": target, "__doc__": doc, "class_alias": target.alias})  # type: ignore[attr-defined]


def by_name(name: str) -> type[Facade]:
    """The public class called ``name``; AttributeError if there is none."""
    try:
        return facade(find(name))
    except JwstdaskError as error:
        raise AttributeError(str(error)) from None


def _process(target: type, exposures: Exposures, settings: Settings, executor: Executor | None) -> Any:
    own = settings.layers[-1].parameters
    save = bool(own.get("save_results") or own.get("output_file"))
    if isinstance(exposures, os.PathLike):
        exposures = os.fspath(exposures)
    if combines(target) or (isinstance(exposures, str) and exposures.endswith(".json") and combines(target)):
        return _combine(target, exposures, settings, executor)
    if isinstance(exposures, xr.Dataset):
        return _on_dataset(target, exposures, settings, save)
    requests = _requests(exposures)
    if not save:
        results = [_on_dataset(target, open_exposure(request.path), settings, False) for request in requests]
    else:
        plans = plan_exposures(target, requests, settings)
        outcomes = run_chains([[plan] for plan in plans], executor or Threads())
        for outcome in outcomes:
            if outcome.error is not None:
                raise JwstdaskError(outcome.error)
        results = [_opened(target, dict(outcome.products)) for outcome in outcomes]
    return results if len(results) > 1 or _gives_list(target) else results[0]


def _gives_list(target: type) -> bool:
    return issubclass(target, Pipeline) and target.stage == 2


def _requests(exposures: Exposures) -> list[Request]:
    if isinstance(exposures, str) and exposures.endswith(".json"):
        association = read_association(exposures)
        return [level2_request(association, product) for product in association.products]
    if isinstance(exposures, str):
        return [Request(exposures)]
    return [Request(os.fspath(path)) for path in exposures]


def _opened(target: type, products: Mapping[str, str]) -> Any:
    first = {kind: open_exposure(path) for kind, path in products.items() if kind in ("rate", "rateints", "cal", "result", "ramp")}
    return _main(target, first)


def _main(target: type, products: Mapping[str, Any]) -> Any:
    if target.alias == "ramp_fit":  # type: ignore[attr-defined]
        return products["rate"], products["rateints"]
    for kind in ("rate", "cal", "result", "ramp", ""):
        if kind in products:
            return products[kind]
    return None


def _on_dataset(target: type, ds: xr.Dataset, settings: Settings, save: bool) -> Any:
    """Process in memory."""
    products = lazy_products(target, ds, settings)
    if save:
        raise PlanError(
            "A Dataset given in memory has no file name to derive the product's from",
            "write the result with jwstdask.write_exposure(ds, path)",
        )
    return _main(target, {kind: found.load() for kind, found in products.items()})


def lazy_products(target: type, ds: xr.Dataset, settings: Settings) -> dict[str, xr.Dataset]:
    """Products of a pipeline or step on a Dataset, lazily.

    Raises
    ------
    JwstdaskError
        If the exposure cannot be planned.
    """
    from jwstdask.engine.lazy import apply

    name = str(ds.attrs.get("meta.filename", "dataset"))
    request = Request(name, meta=ds.attrs, shape=tuple(ds["sci"].shape) if "sci" in ds else ())
    plan = plan_exposures(target, [request], settings)[0]
    if plan.error is not None:
        raise JwstdaskError(plan.error)
    return apply(plan, ds)


def _combine(target: type, exposures: Exposures, settings: Settings, executor: Executor | None) -> Any:
    if isinstance(exposures, str) and exposures.endswith(".json"):
        association = read_association(exposures)
    else:
        paths = [exposures] if isinstance(exposures, str) else [os.fspath(path) for path in exposures]
        from jwstdask.io.naming import exposure_stem

        product = Product(exposure_stem(paths[0]), tuple((path, "science") for path in paths))
        association = Association("", "image3", (product,))
    plans = plan_association(target, association, settings)
    outcomes = run_associations(plans, executor or Threads())
    for outcome in outcomes:
        if outcome.error is not None:
            raise JwstdaskError(outcome.error)
    if issubclass(target, Pipeline):
        return None
    results = [open_exposure(outcome.products["i2d"]) for outcome in outcomes if "i2d" in outcome.products]
    return results[0] if len(results) == 1 else results


