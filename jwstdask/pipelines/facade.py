"""The public classes: jwst's own names and ways to run (``.call``, ``.run``, ``from_cmdline``) over the tables; and
whole programs (`run_program`).

A facade is a plain object whose attributes are parameters, so that scripts written for jwst work: ``step =
JumpStep(); step.rejection_threshold = 5; step.run(exposure)``. As in jwst, ``.call`` uses CRDS parameter references
and makes a new instance, and ``.run`` uses the attributes of the instance and no parameter references.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import xarray as xr

from jwstdask.core.errors import InputError, JwstdaskError, ParameterError, PlanError
from jwstdask.core.params import coerce, declared, suggest
from jwstdask.core.pipeline import Pipeline
from jwstdask.core.plan import ExposurePlan
from jwstdask.core.settings import Layer, Settings
from jwstdask.engine.executor import Cluster, Executor, Serial, Threads
from jwstdask.io.backend import WCS
from jwstdask.io.dataset import open_exposure, write_exposure
from jwstdask.io.metadata import has_wcs, read_metadata, read_wcs
from jwstdask.io.product import make_folder
from jwstdask.pipelines.associate import combines, plan_association
from jwstdask.pipelines.configure import check_layers, refuse_hooks, step_names
from jwstdask.pipelines.planner import Request, check_exposure, level2_request, plan_exposures
from jwstdask.pipelines.program_plan import one_writer
from jwstdask.pipelines.registry import find
from jwstdask.pipelines.resume import Resume
from jwstdask.pipelines.run import ProgramResult, home_of, run_associations, run_chains
from jwstdask.pipelines.run import run_program as run_settings
from jwstdask.pipelines.settings import file_layer, program_settings
from jwstdask.program.associations import Association, Product, read_association
from jwstdask.steps.registry import step_class

Exposures = Any
"""A path, an association file, a Dataset, or a list of paths."""


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
        executor: Any = None,
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
            Where it runs: a ``distributed.Client``, or an executor of `jwstdask.engine.executor`; by default dask's
            threads in this process, as do exposures that are not saved.
        **parameters
            Of the pipeline or step, such as ``save_results=True`` and ``output_dir="d"``.

        Returns
        -------
        xarray.Dataset or list of them
            The product; for ramp_fit the pair of rate and rateints, for calwebb_image2 a list, for Stage 3 pipelines
            None (their products are files).

        Raises
        ------
        JwstdaskError
            What went wrong, with the exposure and the remedy.
        """
        layers = [] if config_file is None else [file_layer(config_file)]
        layers.append(Layer("call", parameters, steps or {}))
        return _process(cls.target, exposures, Settings(tuple(layers), context=context), executor_over(executor))

    def run(self, exposures: Exposures) -> Any:
        """Process exposures with this instance's parameters; CRDS parameter references are not used."""
        return _process(type(self).target, exposures, self._settings(False), None)

    __call__ = run

    def apply(
        self, exposure: xr.Dataset | str | os.PathLike[str], *, parameter_references: bool = False, rows: int = 128
    ) -> xr.Dataset | xr.DataTree:
        """Products of an exposure, lazily: headers and references are opened, no pixel is read.

        Computing a part of a product computes the strips of rows that it lies in, each as one task that sends it
        through all steps. Where the search for large events is on (``jump.expand_large_events``), the flags of the
        whole frame come first. Nothing is saved, whatever the parameters of saving are.

        Parameters
        ----------
        exposure
            A Dataset as `jwstdask.open_exposure` gives it, or a path.
        parameter_references
            Use CRDS parameter references, as `call` does; without, this instance's parameters alone, as `run` does.
        rows
            Rows of a strip, the chunks of the products.

        Returns
        -------
        xarray.Dataset or xarray.DataTree
            The product; where there are several (rate and rateints), a tree with a node for each. Metadata that follow
            from counts over the whole frame, such as the number of cosmic rays, are absent.

        Raises
        ------
        PlanError
            For steps and pipelines that combine exposures.
        JwstdaskError
            If the exposure cannot be processed. What only pixels show is raised when they are computed.
        """
        target = type(self).target
        if combines(target):
            raise PlanError(f"{target.alias} combines exposures and writes files", "use .call or .run with their paths")
        settings = self._settings(parameter_references)
        before, after = _hooks(settings)
        ds = exposure if isinstance(exposure, xr.Dataset | xr.DataTree) else open_exposure(exposure)
        plan, ds = _plan_dataset(target, _called(before, ds), settings)
        from jwstdask.engine.lazy import apply

        products = {kind: _called(after, found) for kind, found in apply(plan, ds, rows).items()}
        if len(products) == 1:
            return next(iter(products.values()))
        return xr.DataTree.from_dict(products)

    def _settings(self, parameter_references: bool) -> Settings:
        steps = {name: step._values for name, step in self._steps.items() if step._values}
        layer = Layer("instance", dict(self._values), steps)
        return Settings((layer,), parameter_references=parameter_references)

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
    facts = "\n".join(
        f"    {name}: {kind} = {default!r}\n        {par.doc}"
        for name, (kind, par, default) in declared(target).items()
    )
    doc = f"{target.__doc__}\n\n    Parameters\n    ----------\n{facts}\n"
    return type(target.class_name, (Facade,), {"target": target, "__doc__": doc, "class_alias": target.alias})  # type: ignore[attr-defined]


def by_name(name: str) -> type[Facade]:
    """The public class called ``name``; AttributeError if there is none."""
    try:
        return facade(find(name))
    except JwstdaskError as error:
        raise AttributeError(str(error)) from None


def executor_over(place: Any) -> Executor:
    """The executor for what a user says: one, a ``distributed.Client``, or None for threads of this process."""
    if place is None:
        return Threads()
    return place if hasattr(place, "workers") else Cluster(place)


def run_program(
    exposures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    through: int = 3,
    *,
    output_dir: str | os.PathLike[str] | None = None,
    steps: Mapping[str, Mapping[str, Any]] | None = None,
    parameter_files: Sequence[str | os.PathLike[str]] = (),
    context: str | None = None,
    executor: Any = None,
    report: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> ProgramResult:
    """Calibrate a whole program, as ``jwstdask run FOLDER --through 3`` does.

    Parameters
    ----------
    exposures
        A folder, files, associations, or a list of these.
    through
        Last stage: 1, 2 or 3.
    output_dir
        Folder of the products; beside their inputs by default.
    steps
        Step name to its parameters, for every pipeline that has the step.
    parameter_files
        Parameter files (.asdf or .cfg) of pipelines or steps; ``steps`` come above them.
    context
        CRDS context.
    executor
        As in `Facade.call`.
    report
        Path of an HTML report to write.
    resume
        Keep a journal in the folder of the products, and do only what is missing or stale.

    Returns
    -------
    ProgramResult
        Plans and outcomes. A failure stays with its exposure: see ``result.failed``.

    Raises
    ------
    ParameterError
        If no pipeline has a step or the step no such parameter.
    PlanError, InputError
        If there is nothing to process, or a path does not exist.
    """
    inputs = [exposures] if isinstance(exposures, str | os.PathLike) else exposures
    folder = None if output_dir is None else os.fspath(output_dir)
    base = Settings(context=context, output_dir=folder)
    each = program_settings(base, "run_program", steps or {}, parameter_files)
    wanted = Resume(command=("jwstdask.run_program",)) if resume else None
    paths = [os.fspath(path) for path in inputs]
    result = run_settings(paths, through, base, executor_over(executor), each, resume=wanted)
    if report is not None:
        from jwstdask.report.html import write_run_report

        plans = [item for chain in result.plan.chains for item in chain]
        home = home_of(result.plan, base) if resume else None
        write_run_report(report, home, plans, result.plan.associations, result.outcomes)
    return result


def _process(target: type, exposures: Exposures, settings: Settings, executor: Executor | None) -> Any:
    own: dict[str, Any] = {}
    for layer in settings.layers:
        own.update(layer.parameters)
    save = bool(coerce(target, "save_results", own.get("save_results", False), target.alias) or own.get("output_file"))  # type: ignore[attr-defined]
    if isinstance(exposures, os.PathLike):
        exposures = os.fspath(exposures)
    if combines(target):
        return _combine(target, exposures, settings, executor)
    if isinstance(exposures, xr.Dataset | xr.DataTree):
        return _in_memory(target, exposures, settings, save, executor)
    requests = _requests(exposures)
    if not save or any(_hooks(settings)):
        check_layers(target, settings.layers)
        results = [_in_memory(target, request, settings, save, executor) for request in requests]
    else:
        chains = one_writer([[plan] for plan in plan_exposures(target, requests, settings)])
        outcomes = run_chains(chains, executor or Threads())
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
    first = {
        kind: open_exposure(path)
        for kind, path in products.items()
        if kind in ("rate", "rateints", "cal", "result", "ramp")
    }
    return _main(target, first)


def _main(target: type, products: Mapping[str, Any]) -> Any:
    if target.alias == "ramp_fit":  # type: ignore[attr-defined]
        return products["rate"], products["rateints"]
    for kind in ("rate", "cal", "result", "ramp", ""):
        if kind in products:
            return products[kind]
    return None


def _in_memory(
    target: type, exposure: Request | xr.Dataset, settings: Settings, save: bool, executor: Executor | None
) -> Any:
    """Process an exposure without files between; hooks run before and after."""
    from jwstdask.engine.memory import process, tables_of
    from jwstdask.engine.sources import FileArrays, MemoryArrays

    before, after = _hooks(settings)
    if isinstance(exposure, Request) and not before:
        plan = _planned(target, exposure, settings)
        arrays = FileArrays.open(plan.path)
        layout = arrays.layout
        meta = read_metadata(layout, complete=True)
        tables = {
            hdu.name.lower(): layout.table(hdu.name) for hdu in layout if hdu.kind == "table" and hdu.name != "ASDF"
        }
        wcs = read_wcs(layout) if has_wcs(layout) else None
    else:
        members = exposure if isinstance(exposure, Request) else None
        ds = open_exposure(exposure.path) if isinstance(exposure, Request) else exposure
        plan, ds = _plan_dataset(target, _called(before, ds), settings, members)
        pixels = {str(name): item.values for name, item in ds.data_vars.items() if item.ndim > 1}
        arrays = MemoryArrays(pixels, plan.path)
        meta, tables = ds.attrs, {name: rows.compute().copy() for name, rows in tables_of(ds).items()}
        wcs = ds[WCS].item() if WCS in ds.coords else None
    local = executor if isinstance(executor, Threads | Serial) else Threads()
    products = process(plan, arrays, meta, tables, wcs, local)
    products = {kind: found if kind.startswith("tap:") else _called(after, found) for kind, found in products.items()}
    for kind, found in products.items():
        # A step that is told to save its result does, whatever the pipeline does.
        tap = kind.startswith("tap:")
        path = plan.taps[kind.removeprefix("tap:")] if tap else plan.products.get(kind)
        if path is not None and (tap or save):
            make_folder(path)
            write_exposure(found, path)
    return _main(target, products)


def _planned(target: type, request: Request, settings: Settings) -> ExposurePlan:
    """The plan of one exposure; JwstdaskError if there is none."""
    plan = plan_exposures(target, [request], settings)[0]
    if plan.error is not None:
        raise JwstdaskError(plan.error)
    return plan


def _plan_dataset(
    target: type, ds: Any, settings: Settings, members: Request | None = None
) -> tuple[ExposurePlan, xr.Dataset]:
    """The plan of a Dataset, checked as a file is."""
    check_layers(target, settings.layers)
    if not isinstance(ds, xr.Dataset):
        raise InputError("dataset", f"a {type(ds).__name__} cannot be processed", "give a Dataset of one exposure")
    name = str(ds.attrs.get("meta.filename") or os.path.basename(ds.encoding.get("source", "")) or "dataset")
    if "sci" not in ds:
        raise InputError(name, "there is no variable sci", "an exposure needs one")
    shape = tuple(ds["sci"].shape)
    check_exposure(target, ds.attrs, name, shape)
    request = Request(name, meta=ds.attrs, shape=shape)
    if members is not None:
        request = replace(request, members=members.members, product=members.product, updates=members.updates)
    return _planned(target, request, settings), ds


Hooks = tuple[Callable[[Any], Any], ...]


def _hooks(settings: Settings) -> tuple[Hooks, Hooks]:
    """Callables to run before and after; of the last layer that names any.

    Raises
    ------
    ParameterError
        If a hook is not callable, or belongs to a step inside a pipeline.
    """
    found = {}
    for which in ("pre_hooks", "post_hooks"):
        hooks: Any = ()
        for layer in settings.layers:
            for step, parameters in layer.steps.items():
                if parameters.get(which):
                    raise ParameterError(
                        f"{step}.{which}: steps of a pipeline run together, there is nothing between them to call",
                        "Call the steps one by one, or give the hooks to the pipeline.",
                    )
            hooks = layer.parameters.get(which) or hooks
        hooks = hooks if isinstance(hooks, list | tuple) else (hooks,)
        for hook in hooks:
            if not callable(hook):
                raise ParameterError(f"{which}: {hook!r} is not callable", "Give functions of a Dataset.")
        found[which] = tuple(hooks)
    return found["pre_hooks"], found["post_hooks"]


def _called(hooks: Hooks, ds: Any) -> Any:
    """``ds`` after the hooks: each gets it and may return another."""
    for hook in hooks:
        result = hook(ds)
        ds = ds if result is None else result
    return ds


def _combine(target: type, exposures: Exposures, settings: Settings, executor: Executor | None) -> Any:
    if isinstance(exposures, xr.Dataset | xr.DataTree):
        raise PlanError(
            f"{target.alias} combines exposures and reads them from files",  # type: ignore[attr-defined]
            "write them with jwstdask.write_exposure(ds, path) and give the paths",
        )
    refuse_hooks(settings.layers)
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
    results = [open_exposure(path) for outcome in outcomes for path in outcome.products.values()]
    return results[0] if len(results) == 1 else results
