"""``jwstdask explain`` tells all there is to know of a step or pipeline, and which there are."""

from __future__ import annotations

import pytest

from jwstdask.core.params import declared
from jwstdask.core.step import Parameters
from jwstdask.pipelines.registry import PIPELINES, find
from jwstdask.steps.registry import CLASSES, step_class


@pytest.mark.parametrize("name", [*PIPELINES, *CLASSES])
def test_explain(command, name):
    status, printed = command("explain", name)
    assert status == 0
    assert printed.startswith(f"{name} (")
    assert "parameters" in printed
    if name in CLASSES:
        lines = printed.splitlines()
        # What it does, in words; what is computed; where from.
        assert lines[2].endswith(".") and len(lines[2]) >= 20
        for title in ("equations:", "source: ", "references: ", "status: meta.cal_step.", "works "):
            (line,) = [line for line in lines if line.startswith(title)]
            assert title == "equations:" or len(line) > len(title)
        assert lines[lines.index("equations:") + 1].strip()
        # No words of the code: roles of documentation, names of modules.
        assert ":func:" not in printed and ":meth:" not in printed and "jwstdask." not in printed
    target = find(name)
    assert max(map(len, printed.splitlines())) <= 122
    rest = printed.rpartition("`jwstdask explain parameters`): ")[2].replace("\n", " ").strip().split(", ")
    for parameter, (_, facts, _) in declared(target).items():
        if parameter in rest:
            continue
        # Long lines go on in the next one.
        line = next(line for line in unwrapped(printed) if line.startswith(f"  {parameter}: ") and " = " in line)
        assert line.endswith(facts.doc)
        for bound in (facts.ge, facts.gt, facts.le):
            assert bound is None or f" {bound:g}" in line
        assert facts.unit is None or f"[{facts.unit}]" in line
        assert all(str(choice) in line for choice in facts.choices or ())


def unwrapped(printed):
    """The lines of a text, those of a parameter joined."""
    return printed.replace("\n    ", " ").splitlines()


def test_explain_parameters_of_all(command):
    """What every step and pipeline has is named on each page, and told on one."""
    status, printed = command("explain", "parameters")
    assert status == 0
    for name, (_, facts, _) in declared(Parameters).items():
        assert any(line.startswith(f"  {name}: ") and line.endswith(facts.doc) for line in unwrapped(printed))
        assert name in command("explain", "jump")[1] and name in command("explain", "calwebb_image3")[1]


def test_explain_overrides(command):
    """Parameters that replace references, for all that a step takes."""
    assert "\n  override_dark: file to use instead of" in command("explain", "dark_current")[1]
    (line,) = [line for line in unwrapped(command("explain", "assign_wcs")[1]) if line.startswith("  override_")]
    for kind in step_class("assign_wcs").reference_types:
        assert f"override_{kind}" in line
    assert "override_" not in command("explain", "group_scale")[1]


def test_explain_pipeline_says_how_to_reach_steps(command):
    printed = command("explain", "calwebb_detector1")[1]
    assert "--steps.STEP.NAME=VALUE" in printed
    assert {line.split()[0] for line in printed.splitlines() if line.endswith(" (off by default)")} == {
        "emicorr", "firstframe", "charge_migration", "picture_frame", "clean_flicker_noise", "persistence"
    }  # fmt: skip
    # The example is of a step that it has.
    assert "--steps.tweakreg.skip=True" in command("explain", "calwebb_image3")[1]


def test_explain_lists_names(command):
    """Alone, and for a name without a near one: pipelines, then steps by stage, those with the word in them first."""
    status, alone = command("explain")
    assert status == 2 and command("explain", "--help") == (0, alone)
    listed = alone[alone.index("pipelines:") :]
    titles = [line for line in listed.splitlines() if not line.startswith("  ")]
    assert titles == ["pipelines:", "steps of stage 1:", "steps of stage 2:", "steps of stage 3:"]
    words = listed.replace(",", " ").split()
    assert all(name in words for name in (*PIPELINES, *CLASSES)) and "JumpStep" not in listed
    for word, begins in (("dark", "Names with 'dark': dark_current, calwebb_dark.\n"), ("xyzzy", "Known names:\n")):
        status, printed = command("explain", word)
        assert status == 2 and max(map(len, printed.splitlines())) <= 120
        assert printed.startswith(f"jwstdask explain: There is no pipeline or step {word!r}. {begins}")
        assert printed.endswith(listed)


def test_explain_names_parameters(command):
    printed = command("explain", "jump")[1]
    assert "rejection_threshold: float = 4.0 [sigma], >= 0: " in printed
    assert "min_sat_radius_extend: float = 2.5 [pixel]: " in printed
    assert "Anderson & Gordon 2011" in printed and "sigma^2 = |m| + readnoise^2" in printed
    assert "references: gain, readnoise" in printed
    status, printed = command("explain", "jumb")
    assert status == 2 and "Did you mean 'jump'" in printed
