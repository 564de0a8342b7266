"""Stage 1 equals jwst's: flags, values, keywords, tables, for every product that it can save."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import RECIPES
from tests.oracle.compare import Comparison, compare, row
from tests.oracle.conftest import Call, same_names

TOLERANCE = 1e-6
"""Relative: ten units in the last place of a 32-bit number, far less than a thousandth of the error of any pixel."""

VARIANTS = {
    "steps skipped": {
        "steps": {
            "refpix": {"skip": True},
            "dark_current": {"skip": True},
            "jump": {"skip": True},
            "gain_scale": {"skip": True},
        }
    },
    "steps that are off by default": {
        "steps": {"ipc": {"skip": False}, "charge_migration": {"skip": False, "signal_threshold": 15000.0}}
    },
    "thresholds": {
        "steps": {
            "saturation": {"n_pix_grow_sat": 2},
            "refpix": {"odd_even_columns": False, "use_side_ref_pixels": False},
            "jump": {
                "rejection_threshold": 3.5,
                "flag_4_neighbors": False,
                "after_jump_flag_dn1": 10.0,
                "after_jump_flag_time1": 3.0,
                "expand_large_events": False,
            },
            "ramp_fit": {"suppress_one_group": True},
        }
    },
    "some groups": {
        "steps": {
            "ramp_fit": {"firstgroup": 1, "lastgroup": 4},
            "jump": {
                "maximum_cores": "2",
                "three_group_rejection_threshold": 4.5,
                "four_group_rejection_threshold": 4.2,
                "min_jump_to_flag_neighbors": 12.0,
                "max_jump_to_flag_neighbors": 60.0,
            },
        }
    },
    "corrections skipped": {
        "steps": {name: {"skip": True} for name in ("group_scale", "dq_init", "saturation", "superbias", "linearity")}
    },
    "references that do not apply": {
        "steps": {
            "dq_init": {"override_mask": "N/A"},
            "saturation": {"override_saturation": "N/A"},
            "superbias": {"override_superbias": "N/A"},
            "linearity": {"override_linearity": "N/A"},
            "dark_current": {"override_dark": "N/A"},
            "gain_scale": {"override_gain": "N/A"},
        }
    },
    "no fit": {"steps": {"ramp_fit": {"skip": True}, "superbias": {"skip": True}}},
    "likelihood": {"steps": {"ramp_fit": {"algorithm": "LIKELY", "save_opt": True}}},
    "1/f noise cleaned": {"steps": {"clean_flicker_noise": {"skip": False}, "refpix": {"skip": True}}},
    "saved on the way under another name": {
        "output_file": "renamed",
        "steps": {
            "dark_current": {"save_results": True, "output_dir": "no_folder_of_its_own"},
            "jump": {"save_results": True, "output_file": "between", "suffix": "found"},
            "clean_flicker_noise": {"skip": False, "save_mask": True, "save_background": True, "save_noise": True},
            "ramp_fit": {"save_opt": True},
        },
    },
    "mask of each integration": {
        "steps": {"clean_flicker_noise": {"skip": False, "single_mask": False, "save_mask": True}}
    },
    "own name of the ramp": {
        "output_file": "renamed",
        "save_calibrated_ramp": True,
        "steps": {"ramp_fit": {"save_opt": True}},
    },
    "own name": {
        "output_file": "renamed",
        "steps": {"ramp_fit": {"save_opt": True, "opt_name": "fits_of_mine", "int_name": "unused"}},
    },
}
"""Parameters by keyword of ``.call`` and on the command line."""


DELIBERATE = {
    # where dark_current is skipped by parameter the oracle leaves the keyword out: there its status has another name
    "steps skipped": ("PRIMARY S_DARK:", "meta.cal_step.dark_sub:"),
}
"""Differences on purpose: beginnings of what is found."""


def _within_tolerance(ours: Path, oracle: Path, found: Comparison) -> Iterator[str]:
    """Arrays of a product that differ by more than `TOLERANCE`."""
    return (f"{array}: {item}" for array, item in found.arrays.items() if item.relative > TOLERANCE)


def check(
    ours: Path,
    oracle: Path,
    mode: str,
    record_property,
    deliberate: tuple[str, ...] = (),
    values: Callable[[Path, Path, Comparison], Iterator[str]] = _within_tolerance,
) -> None:
    """Every product of one folder equals that of the other; ``values`` says where those of a product differ."""
    rows, wrong = [], Counter()
    for name in same_names(ours, oracle):
        result = compare(ours / name, oracle / name)
        # after program, visit, exposure and detector
        product = "_".join(name.removesuffix(".fits").split("_")[4:]) or "rate"
        rows.append(row("calwebb_detector1", mode, product, result))
        wrong.update(f"{product}: {text}" for text in result.headers if not text.startswith(deliberate))
        wrong.update(f"{product}: {text}" for text in values(ours / name, oracle / name, result))
        assert result.arrays
    record_property("parity", rows)
    assert not wrong, "\n".join(f"{count} x {text}" for text, count in sorted(wrong.items()))
    assert sum(item["flags"] or 0 for item in rows) == 0


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "mosaic"])
def test_products_equal_the_oracles(products, name, record_property):
    ours, oracle = products.detector1("ours", name), products.detector1("jwst", name)
    check(ours, oracle, RECIPES[name].mode, record_property)


def _folder(variant: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_mean_what_they_mean_to_the_oracle(products, variant, record_property):
    program = products.programs("bright2")
    calls = [
        Call("calwebb_detector1", "jwst.pipeline.Detector1Pipeline", program.uncals[0], options, _folder(name))
        for name, options in VARIANTS.items()
    ]
    folders = [
        products.make(who, "variants", lambda _: calls, program.cache.environment) / _folder(variant)
        for who in ("ours", "jwst")
    ]
    check(*folders, f"{RECIPES['bright2'].mode}, {variant}", record_property, DELIBERATE.get(variant, ()))
