"""``jwstdask run``: exposures through a pipeline or step as strun does, or a whole program through its stages."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from glob import has_magic
from typing import Any

from jwstdask.cli.arguments import (
    executor_of,
    join_ranks,
    parser,
    profile_of,
    program_settings,
    settings_of,
    split_parameters,
)
from jwstdask.cli.progress import Progress, Terminal, duration, numbered
from jwstdask.core.errors import JwstdaskError, PlanError
from jwstdask.core.plan import Outcome
from jwstdask.core.settings import Layer
from jwstdask.engine.forks import prepare
from jwstdask.io.remote import absolute, is_url, join

_EPILOG = """
examples:
  jwstdask run calwebb_detector1 jw..._uncal.fits --steps.jump.rejection_threshold=5 --output_dir=d
  jwstdask run calwebb_image2 jw*_rate.fits
  jwstdask run calwebb_image3 jw..._image3_asn.json
  jwstdask run jump jw..._dark_current.fits --rejection_threshold=5
  jwstdask run my_parameters.asdf jw..._uncal.fits
  jwstdask run FOLDER --through 3 --output_dir=results --workers 8
  jwstdask run s3://stpubdata/jwst/public/jw01234/ --through 3 --output_dir=s3://BUCKET/results
  jwstdask run FOLDER my_detector1.asdf my_jump.asdf --steps.ramp_fit.save_opt=true
  jwstdask plan FOLDER --output=plan.yaml && jwstdask run plan.yaml
  jwstdask run --since results --context jwst_1500.pmap

Parameters are given as strun takes them: --PARAMETER=VALUE and --steps.STEP.PARAMETER=VALUE.
"""

# What asks for no later stage: workers need not be ready for one.
_STAGE1 = (
    "calwebb_detector1",
    "calwebb_dark",
    "calwebb_guider",
    "Detector1Pipeline",
    "DarkPipeline",
    "GuiderPipeline",
)

_DOES = {"run": "Calibrate exposures.", "plan": "Show what `jwstdask run` would do with the same words, and stop."}


def main(argv: Sequence[str], command: str = "run") -> int:
    with _interrupts.remembered():
        return _main(argv, command)


def _main(argv: Sequence[str], command: str) -> int:
    options_parser = parser(command, _DOES[command] + "\n" + _EPILOG)
    options_parser.add_argument(
        "target",
        nargs="?",
        help="pipeline, step or parameter file; or the first input of a whole program: a folder, file, pattern, URL, "
        "association, pool (.csv) or saved plan (.yaml)",
    )
    options_parser.add_argument(
        "--since",
        metavar="RUN",
        help="do only what has other references or parameters than in the run whose products are in this folder, and "
        "what follows from it; without inputs: of the inputs and parameters of that run",
    )
    if command == "plan":
        options_parser.add_argument(
            "--output", metavar="FILE", help="save the plan (.yaml or .json) for `jwstdask run`"
        )
    options, rest = options_parser.parse_known_args(argv)
    if options.target is None:
        if options.since is None:
            options_parser.error("give a pipeline, a step or inputs")
        from jwstdask.cli.since import continued

        options, rest = continued(options_parser, options, rest)
    options.words = argv
    options.output = getattr(options, "output", None)
    options.dry_run = options.dry_run or command == "plan"
    if not options.dry_run:
        profile = profile_of(options)
        join_ranks(profile)
        if profile is not None and profile.kind == "local":
            # It imports while this process plans.
            prepare(stage1=options.through == 1 or options.target in _STAGE1)
    start_log(options.verbose)
    inputs, own, steps = split_parameters(rest)
    words = [options.target, *inputs]
    if any(map(_is_plan, words)):
        return _run_plan(options, words, own, steps)
    parameters_first = _is_parameter_file(options.target) and any(map(os.path.isdir, words))
    if options.through is not None or _is_program(options.target) or parameters_first:
        files = [word for word in words if _is_parameter_file(word)]
        return _run_program(options, [word for word in words if word not in files], files, own, steps)
    if options.since:
        raise PlanError("--since is for whole programs", "give inputs, not a pipeline or step")
    return _run_target(options, inputs, own, steps)


def _is_plan(word: str) -> bool:
    if not word.endswith((".yaml", ".yml", ".json")):
        return False
    from jwstdask.pipelines.plan_file import is_plan_file

    return is_plan_file(word)


def start_log(verbose: bool) -> None:
    """Log to the terminal: warnings, or with ``verbose`` more."""
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, handlers=[Terminal()])
    # Some libraries set the level of their loggers themselves; the handler has the last word.
    for handler in logging.getLogger().handlers:
        handler.setLevel(level)


def _is_parameter_file(word: str) -> bool:
    return word.endswith((".asdf", ".cfg"))


def _is_program(target: str) -> bool:
    return os.path.isdir(target) or is_url(target) or target.endswith((".fits", ".json", ".csv")) or has_magic(target)


def _run_target(options: Any, inputs: list[str], own: dict[str, Any], steps: dict[str, dict[str, Any]]) -> int:
    """A pipeline or step on files, as strun."""
    from jwstdask.pipelines.associate import combines
    from jwstdask.pipelines.configure import check_layers, refuse_hooks
    from jwstdask.pipelines.registry import find

    layers: list[Layer] = []
    if _is_parameter_file(options.target):
        from jwstdask.pipelines.settings import file_layer, file_target

        layers.append(file_layer(options.target))
        target = file_target(options.target)
    else:
        target = find(options.target)
    settings = settings_of(options, layers, own, steps)
    match = None
    if options.match:
        from jwstdask.pipelines.match import matched, read_match

        match = read_match(options.match)
        settings = matched(match, target, settings)
    check_layers(target, settings.layers)
    refuse_hooks(settings.layers)
    if options.save_parameters and not options.dry_run:
        _save_parameters(target, inputs, settings, options.save_parameters)
        if not inputs:
            return 0
    if not inputs:
        raise PlanError(f"{target.alias} has no input", "give one or more files")
    if combines(target):
        _say_notes(match)
        return _run_associations(options, target, inputs, settings)
    from jwstdask.pipelines.planner import plan_exposures
    from jwstdask.pipelines.program_plan import one_writer
    from jwstdask.pipelines.run import run_chains
    from jwstdask.program.log import noted

    for path, count in Counter(inputs).items():
        if count > 1:
            print(f"{path} is given {count} times and calibrated once", file=sys.stderr)
    inputs = list(dict.fromkeys(inputs))
    drafts: list[Any] = []
    plans = plan_exposures(target, _requests(target, inputs), settings, drafts)
    if match is not None:
        from jwstdask.pipelines.match import with_overrides

        changed = with_overrides(settings, match, target, plans)
        if changed is not None:
            drafts = []
            plans = plan_exposures(target, _requests(target, inputs), changed, drafts)
        _say_notes(match)
    plans = [plan for (plan,) in one_writer([[plan] for plan in plans])]
    if options.dry_run:
        from jwstdask.pipelines.program_plan import Basis, ProgramPlan

        bases = {(item.pipeline, item.path): Basis.of(draft) for item, draft in zip(plans, drafts, strict=True)}
        return _show(options, ProgramPlan([[item] for item in plans], bases=bases), settings)
    _interrupts.heed()
    progress = Progress(len(plans), steps=options.verbose, style=options.log_format)
    executor = executor_of(options)
    started = time.perf_counter()
    try:
        outcomes = run_chains([[plan] for plan in plans], executor, progress, options.grain, noted)
    finally:
        progress.close()
        executor.close()
    _say_done(outcomes, time.perf_counter() - started)
    if options.report:
        from jwstdask.report.html import write_report

        write_report(options.report, plans, [], outcomes)
    return _end(outcomes, options.debug)


def _say_notes(match: Any) -> None:
    """What of a product cannot be matched."""
    for note in [] if match is None else match.notes:
        print(f"{match.origin}: {note}", file=sys.stderr)


def _match_program(
    path: str, inputs: list[str], through: int, settings: Any, each: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Requests for a program that shall be done as a product was."""
    from jwstdask.pipelines.configure import check_layers
    from jwstdask.pipelines.inputs import find_inputs
    from jwstdask.pipelines.match import matched, read_match, with_overrides
    from jwstdask.pipelines.program_plan import plan_program
    from jwstdask.pipelines.registry import PIPELINES

    match = read_match(path)
    settings = replace(settings, context=settings.context or match.context or None)
    found, general = {}, match.notes
    notes: dict[str, list[str]] = {}
    for alias, request in each.items():
        match.notes = notes[alias] = []
        found[alias] = matched(match, PIPELINES[alias], request)
        check_layers(PIPELINES[alias], found[alias].layers)
    each, match.notes = found, general
    plan = plan_program(find_inputs(inputs), through, settings, each)
    for alias, request in each.items():
        plans = [item for chain in plan.chains for item in chain if item.pipeline == alias]
        if plans or (alias == "calwebb_image3" and through >= 3):
            match.notes += notes[alias]
        each[alias] = with_overrides(request, match, PIPELINES[alias], plans) or request
    _say_notes(match)
    return settings, each


def _requests(target: type, inputs: Sequence[str]) -> list[Any]:
    """Exposures of the inputs: files, and the products of Stage 2 associations."""
    from jwstdask.pipelines.planner import Request, level2_request
    from jwstdask.program.associations import read_association

    requests = []
    for path in inputs:
        if path.endswith(".json"):
            association = read_association(path)
            requests += [level2_request(association, product) for product in association.products]
        else:
            requests.append(Request(path))
    return requests


def _run_associations(options: Any, target: type, inputs: list[str], settings: Any) -> int:
    from jwstdask.engine.association import run_association
    from jwstdask.io.naming import exposure_stem
    from jwstdask.pipelines.associate import plan_association
    from jwstdask.pipelines.run import run_associations
    from jwstdask.program.associations import Association, Product, read_association
    from jwstdask.program.log import noted

    associations = [read_association(path) for path in inputs if path.endswith(".json")]
    files = [path for path in inputs if not path.endswith(".json")]
    if files:
        product = Product(exposure_stem(files[0]), tuple((path, "science") for path in files))
        associations.append(Association("", "image3", (product,)))
    sources = [replace(item, products=(product,)) for item in associations for product in item.products]
    drafts: list[Any] = []
    plans = [plan for source in sources for plan in plan_association(target, source, settings, kept=drafts)]
    if options.dry_run:
        from jwstdask.pipelines.program_plan import Combination, ProgramPlan

        program = ProgramPlan()
        program.take([Combination.of(*item) for item in zip(sources, plans, drafts, strict=True)])
        return _show(options, program, settings)
    progress = Progress(len(plans), steps=options.verbose, style=options.log_format)
    executor = executor_of(options)
    started = time.perf_counter()
    try:
        outcomes = run_associations(plans, executor, progress, partial(noted, work=run_association))
    finally:
        progress.close()
        executor.close()
    _say_done(outcomes, time.perf_counter() - started)
    if options.report:
        from jwstdask.report.html import write_report

        write_report(options.report, [], plans, outcomes)
    return _end(outcomes, options.debug)


def _run_program(
    options: Any, inputs: list[str], files: list[str], own: dict[str, Any], steps: dict[str, dict[str, Any]]
) -> int:
    """A whole program through its stages."""
    from jwstdask.pipelines.inputs import find_inputs
    from jwstdask.pipelines.program_plan import plan_program

    settings, each = program_settings(options, own, steps, files)
    through = options.through or 3
    if options.match:
        settings, each = _match_program(options.match, inputs, through, settings, each)
    program = find_inputs(inputs)
    foresee = options.dry_run or bool(options.since)
    plan = plan_program(program, through, settings, each, options.min_members, foresee)
    if options.since:
        from jwstdask.pipelines.run import home_of
        from jwstdask.pipelines.since import lines, restrict

        since = restrict(plan, options.since, absolute(home_of(plan, settings)))
        print("\n".join(lines(since, options.verbose)), file=sys.stdout if options.dry_run else sys.stderr)
    return _run_planned(options, plan, settings)


def _run_plan(options: Any, words: list[str], own: dict[str, Any], steps: dict[str, dict[str, Any]]) -> int:
    """A plan that was saved."""
    from jwstdask.core.settings import Settings
    from jwstdask.pipelines.plan_file import plan_of_file, read_plan

    others = [*own.keys() - {"output_dir"}, *steps]
    if len(words) > 1 or others or options.context or options.since or options.match or options.through:
        raise PlanError(
            f"{next(filter(_is_plan, words))} is a whole plan: beside it there are no inputs, parameters, --context, "
            "--since, --match or --through",
            "change them in the plan, or make another one",
        )
    found = read_plan(words[0], settings_of(options, (), own, {}).output_dir)
    settings = Settings(context=found.context or None, output_dir=found.output_dir)
    return _run_planned(options, plan_of_file(found, options.min_members), settings)


def _run_planned(options: Any, plan: Any, settings: Any) -> int:
    """Do, or with --dry-run show, a plan of a program."""
    from jwstdask.engine.executor import Cluster
    from jwstdask.pipelines.program_plan import ProgramPlan
    from jwstdask.pipelines.resume import Resume, check_force
    from jwstdask.pipelines.run import home_of, run_program
    from jwstdask.program.log_files import keep_worker_logs, worker_folder
    from jwstdask.refs.crds import context_name

    resume = Resume(check_force(options.force), ("jwstdask", "run", *options.words), context_name(settings.context))
    for note in plan.notes:
        print(note, file=sys.stderr)
    if options.dry_run:
        return _show(options, plan, settings, resume)
    _interrupts.heed()
    home = home_of(plan, settings)
    progress = Progress(0, steps=options.verbose, style=options.log_format)
    executor = executor_of(options, worker_folder(home))

    def planned(plan: ProgramPlan) -> None:
        count = sum(len(chain) for chain in plan.chains)
        progress.add(count)
        exposures = numbered(len(plan.chains) + len(plan.finished), "exposure")
        where = numbered(executor.workers, "worker" if isinstance(executor, Cluster) else "thread")
        progress.say(f"{exposures}, {numbered(count, 'task')} on {where}")

    try:
        _interrupts.heed()
        with stopping():
            result = run_program(
                (),
                3,
                settings,
                executor,
                None,
                progress,
                options.grain,
                planned,
                progress.add,
                resume,
                options.on_error,
                options.min_members,
                progress.say,
                plan,
            )
    finally:
        progress.close()
        try:
            if isinstance(executor, Cluster) and progress.done:
                keep_worker_logs(home, executor.worker_logs())
        finally:
            executor.close()
    if not options.no_report:
        from jwstdask.report.html import write_run_report

        path = options.report or join(settings.output_dir or ".", "report.html")
        plans = [item for chain in result.plan.chains for item in chain]
        write_run_report(path, home, plans, result.plan.associations, result.outcomes)
        print(f"report: {path}", file=sys.stderr)
    print(
        f"{len(result.outcomes) - len(result.failed)} of {len(result.outcomes)} done in {duration(result.wall)}",
        file=sys.stderr,
    )
    if progress.warned:
        count = f"{progress.warned} of {progress.done}" if progress.done > 1 else "1"
        print(f"{count} with warnings: see the logs", file=sys.stderr)
    return _end(result.outcomes, options.debug)


class _Interrupts:
    """Remembers Ctrl-C: while libraries are imported some take the exception for one of theirs, and go on."""

    def __init__(self) -> None:
        self._asked = False

    @contextlib.contextmanager
    def remembered(self) -> Iterator[None]:
        self._asked = False
        main_thread = threading.current_thread() is threading.main_thread()
        if not main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, *_: Any) -> None:
        self._asked = True
        raise KeyboardInterrupt

    def heed(self) -> None:
        """Stop if Ctrl-C has been pressed and nobody took notice."""
        if self._asked:
            raise KeyboardInterrupt


_interrupts = _Interrupts()


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Ctrl-C or SIGTERM stops cleanly, which may take until the exposures in progress are done; the second one, now."""

    def first(*_: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, second)
        print("\nStopping; Ctrl-C again stops now.", file=sys.stderr, flush=True)
        raise KeyboardInterrupt

    def second(*_: Any) -> None:
        os.write(2, b"\nStopped. Finished products are complete. Give the same command again to go on.\n")
        os._exit(130)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, first) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(options: Any, plan: Any, settings: Any, resume: Any = None) -> int:
    """Print a plan, and save it if that is wanted."""
    from jwstdask.cli.plan import print_program, workers_of
    from jwstdask.pipelines.run import count_fresh

    print_program(plan, workers_of(options), settings.output_dir, options.verbose)
    if resume is not None and plan.chains:
        fresh, count = count_fresh(plan, settings, resume)
        if fresh:
            print(f"{fresh} of {count} are up to date")
    if options.save_parameters:
        print(f"{options.save_parameters} is not written: nothing is but by a run without --dry-run")
    if options.output:
        from jwstdask.pipelines.plan_file import save_plan
        from jwstdask.refs.crds import context_name

        left_out = save_plan(options.output, plan, context_name(settings.context), settings.output_dir)
        print(f"plan written to {options.output}" + (f", without {left_out} that have errors" if left_out else ""))
    return 1 if any(item.error is not None for item in [*plan.tasks, *plan.associations]) else 0


def _save_parameters(target: type, inputs: Sequence[str], settings: Any, path: str) -> None:
    """Write the resolved parameters as jwst's ``--save-parameters`` does."""
    from jwstdask.core.params import declared
    from jwstdask.core.pipeline import Pipeline
    from jwstdask.pipelines.configure import configure
    from jwstdask.pipelines.planner import plan_exposures
    from jwstdask.refs.parameters import write_parameters

    configured = configure(target, settings.layers)
    chosen = {name: (step, step.class_name) for name, step in configured.steps.items()}
    if inputs:
        plan = plan_exposures(target, _requests(target, inputs[:1]), settings)[0]
        if plan.error is not None:
            raise JwstdaskError(plan.error)
        chosen |= {item.name: (item.step, item.step.class_name) for item in plan.steps}

    def values(instance: Any) -> dict[str, Any]:
        found = {name: (getattr(instance, name), *item) for name, item in declared(type(instance)).items()}
        # strun refuses what it does not know.
        return {name: value for name, (value, _, facts, default) in found.items() if not facts.own or value != default}

    own = configured.parameters if issubclass(target, Pipeline) else chosen[target.alias][0]  # type: ignore[attr-defined]
    steps = {}
    if issubclass(target, Pipeline):
        steps = {name: (class_name, values(step)) for name, (step, class_name) in chosen.items()}
    write_parameters(path, target.class_name, target.class_name, values(own), steps)  # type: ignore[attr-defined]
    print(f"parameters written to {path}", file=sys.stderr)


def _say_done(outcomes: Sequence[Outcome], wall: float) -> None:
    """How many were done, in what time [s], and where their products are."""
    good = [outcome for outcome in outcomes if outcome.error is None]
    folders = {os.path.dirname(path) or "." for outcome in good for path in outcome.products.values()}
    where = f", products in {folders.pop()}" if len(folders) == 1 else ""
    print(f"{len(good)} of {len(outcomes)} done in {duration(wall)}{where}", file=sys.stderr)


def _end(outcomes: Sequence[Outcome], debug: bool) -> int:
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if debug:
        for outcome in failed:
            print(outcome.traceback, file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(outcomes)} failed", file=sys.stderr)
    return 1 if failed else 0
