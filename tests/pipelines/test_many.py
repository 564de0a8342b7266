"""What is kept of many exposures takes little memory, and loses nothing."""

from __future__ import annotations

from jwstdask.core.plan import ExposurePlan, Outcome, StepPlan, StepRecord
from jwstdask.core.settings import Settings
from jwstdask.pipelines import program_plan
from jwstdask.pipelines.inputs import find_inputs
from jwstdask.pipelines.outcomes import Outcomes
from jwstdask.pipelines.planner import shared
from jwstdask.pipelines.program_plan import plan_program
from jwstdask.pipelines.run import run_chains
from jwstdask.step import JumpStep, SaturationStep
from tests.using import crds_of


def outcome(number, pipeline="calwebb_detector1"):
    steps = tuple(StepRecord(name, "COMPLETE", "", number / 7) for name in ("dq_init", "jump", "ramp_fit"))
    census = {"rate": {"DO_NOT_USE": number, "any": 2 * number}}
    return Outcome(f"jw{number}_uncal.fits", pipeline, {"rate": f"jw{number}_rate.fits"}, steps, census=census)


def test_outcomes_are_a_sequence():
    found = Outcomes()
    assert not found
    made = [outcome(number) for number in (3, 1, 2)] + [outcome(1, "calwebb_image2")]
    for item in made:
        found.append(item)
    assert list(found) == made and len(found) == 4
    assert found[-1] == made[-1] and found[1:3] == made[1:3]
    order = {("calwebb_detector1", f"jw{number}_uncal.fits"): number for number in (1, 2, 3)}
    assert list(found.ordered(order)) == [made[1], made[2], made[0], made[3]]


def test_outcomes_that_are_only_told_are_not_kept():
    from jwstdask.engine.executor import Serial

    told = []
    chains = [[ExposurePlan(f"jw{number}_uncal.fits", "calwebb_detector1")] for number in range(3)]

    def work(plan, executor=None):
        return Outcome(plan.path, plan.pipeline)

    assert run_chains(chains, Serial(), told.append, "exposure", work, keep=False) == []
    assert [item.path for item in told] == [chain[0].path for chain in chains]
    assert run_chains(chains, Serial(), None, "exposure", work) == told


def plan(number, step, references=None, updates=None):
    steps = (StepPlan("jump", step, None, references or {"gain": "gain.fits"}, {}),)
    return ExposurePlan(f"jw{number}_uncal.fits", "calwebb_detector1", steps=steps, updates=updates or {"meta.a": "b"})


def test_what_plans_have_in_common_is_there_once():
    plans = [plan(number, JumpStep(rejection_threshold=4.0)) for number in range(3)]
    assert plans[0].steps[0] is not plans[1].steps[0]
    found = shared(plans)
    assert [repr(item) for item in found] == [repr(item) for item in plans]
    assert len({id(item.steps[0]) for item in found}) == len({id(item.updates) for item in found}) == 1


def test_what_differs_in_plans_stays_different():
    """Also where Python calls it equal: 1, 1.0 and True."""
    given = [
        plan(0, SaturationStep(n_pix_grow_sat=1)),
        plan(1, SaturationStep(n_pix_grow_sat=2)),
        plan(2, JumpStep(rejection_threshold=4.0)),
        plan(3, JumpStep(rejection_threshold=4.0), {"gain": "other.fits"}),
        plan(4, JumpStep(rejection_threshold=4), updates={"meta.a": 1}),
        plan(5, JumpStep(rejection_threshold=4.0), updates={"meta.a": True}),
    ]
    assert [repr(item) for item in shared(given)] == [repr(item) for item in given]


def test_plans_made_in_parts_are_the_same(programs, tmp_path, monkeypatch):
    program = programs("bright2")
    with crds_of(programs.cache("bright2")):
        inputs = find_inputs([str(path) for path in program.uncals])
        settings = Settings((), output_dir=str(tmp_path))
        whole = plan_program(inputs, 3, settings, {}, foresee=True)
        monkeypatch.setattr(program_plan, "_AT_ONCE", 2)
        parts = plan_program(inputs, 3, settings, {}, foresee=True)
    assert len(whole.chains) == 3 and all(len(chain) == 2 for chain in whole.chains)
    assert parts.chains == whole.chains and parts.bases == whole.bases
    assert parts.associations == whole.associations and len(parts.associations) == 1
