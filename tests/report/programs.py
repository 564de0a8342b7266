"""Journals of programs that were never run: as many exposures as wanted."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jwstdask.program.journal import Journal, journal_path, line_of

DETECTOR1 = (
    "group_scale dq_init saturation ipc superbias refpix linearity dark_current charge_migration jump picture_frame "
    "clean_flicker_noise persistence ramp_fit gain_scale"
).split()
IMAGE2 = "bkg_subtract assign_wcs flat_field photom resample".split()
IMAGE3 = "tweakreg skymatch outlier_detection resample source_catalog".split()
DETECTORS = [f"nrc{module}{number}" for module in "ab" for number in "1234"]
NASTY = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=2>&lt;\u2028{}"
"""Text that must be shown as it is."""


def settings(pipeline: str, steps: list[str], detector: str) -> dict[str, Any]:
    return {
        "record": "settings",
        "key": f"{pipeline} {detector}",
        "pipeline": pipeline,
        "context": "jwst_1413.pmap",
        "exp_type": "NRC_IMAGE",
        "steps": [
            {
                "name": name,
                "skip": "skip is set" if name in ("ipc", "persistence") else None,
                "parameters": {"rejection_threshold": [5.0, "pars-jumpstep_0102.asdf"]} if name == "jump" else {},
                "references": {name: f"jwst_nircam_{name}_{detector}.fits"},
            }
            for name in steps
        ],
    }


def finished(task: str, steps: list[str], products: Mapping[str, str], random: random.Random, **more: Any) -> dict:
    wall = random.uniform(2, 6)
    return {
        "record": "finished",
        "task": task,
        "steps": [
            [name, "SKIPPED" if name == "ipc" else "COMPLETE", "skip is set" if name == "ipc" else "", random.random()]
            for name in steps
        ],
        "wall": wall,
        "cpu": 0.9 * wall,
        "memory": random.randrange(400_000_000, 900_000_000),
        "warnings": [],
        "recipe": "0" * 32,
        "inputs": {f"/in/{task}": [1, 2, "0" * 32]},
        "references": {f"/crds/jwst_nircam_{name}_nrca1.fits": [80_000_000, 5, "ab" * 16] for name in steps},
        "products": {kind: [path, 1000, 5, f"{random.getrandbits(128):032x}"] for kind, path in products.items()},
        **more,
    }


def census(random: random.Random, kinds: list[str]) -> dict[str, dict[str, int]]:
    size = 2048 * 2048
    found = {}
    for kind in kinds:
        count = size * (10 if kind == "groups" else 1)
        flags = ["DO_NOT_USE", "SATURATED", "JUMP_DET"]
        if kind != "groups":
            flags += ["DEAD", "HOT", "LOW_QE", "NONLINEAR", "NO_FLAT_FIELD", "REFERENCE_PIXEL"]
        found[kind] = {"all": count, "any": count // 9, **{flag: random.randrange(1, count // 20) for flag in flags}}
    return found


def write_program(
    folder: Path,
    exposures: int,
    workers: int = 16,
    seed: int = 1,
    fails: Callable[[int], bool] = lambda index: index % 997 == 3,
    nasty: bool = True,
    end: bool = True,
) -> list[str]:
    """A journal of a program through Stage 3 in ``folder``; the names of its exposures."""
    rng = random.Random(seed)
    with Journal(folder):
        # Makes the folder.
        pass
    time = 1_790_000_000.0
    lines = [{"record": "run", "command": ["jwstdask", "run"], "context": "jwst_1413.pmap", "workers": workers}]
    lines[0] |= {"process": 1, "host": "node", "versions": {"jwstdask": "0.1.0", "numpy": "2.0"}, "time": time}
    for detector in DETECTORS:
        lines += [settings("calwebb_detector1", DETECTOR1, detector), settings("calwebb_image2", IMAGE2, detector)]
    lines.append(settings("calwebb_image3", IMAGE3, ""))
    names = [
        f"jw01234{place // 100 + 1:03d}001_{place // 10 % 10 + 2:02d}101_{place % 10 + 1:05d}_{detector}"
        for place, detector in ((index // 8, DETECTORS[index % 8]) for index in range(exposures))
    ]
    if nasty and names:
        names[0] = f"jw{NASTY.replace('/', '')}_nrca1"
    planned, done = [], []
    free = [time + 1.0 + 0.1 * worker for worker in range(workers)]
    for index, name in enumerate(names):
        detector, broken = DETECTORS[index % 8], fails(index)
        worker = free.index(min(free))
        for pipeline, steps, kinds, products in (
            ("calwebb_detector1", DETECTOR1, ["mask", "groups", "rate"], ("rate", "rateints")),
            ("calwebb_image2", IMAGE2, ["cal"], ("cal",)),
        ):
            before = "uncal" if pipeline == "calwebb_detector1" else "rate"
            task = f"{pipeline} {name}_{products[0]}.fits"
            path = f"/in/{name}_{before}.fits"
            key = f"{pipeline} {detector}"
            planned.append({"record": "planned", "task": task, "pipeline": pipeline, "path": path, "settings": key})
            if broken and pipeline == "calwebb_image2":
                continue
            place = {"worker": f"node{worker // 4}:{worker}", "started": free[worker]}
            files = {kind: f"{name}_{kind}.fits" for kind in products}
            record = finished(task, steps, files, rng, census=census(rng, kinds), **place)
            if index % 50 == 7:
                record["warnings"] = [["flat_field", f"RuntimeWarning: divide {NASTY if nasty else ''}", 3]]
            if broken:
                reason = f"{path}: jump: rows 128:256 are missing. {NASTY if nasty else ''}Get the file again"
                record |= {"record": "failed", "reason": reason, "trace": f"Traceback\nOSError: {reason}"}
                record["steps"] = [["jump", "FAILED", "rows 128:256 are missing", 0.0]]
            free[worker] += record["wall"]
            done.append({"record": "started", "task": task, "worker": place["worker"], "time": place["started"]})
            done.append({**record, "time": free[worker]})
    for number in range(max(exposures // 200, 1)):
        name, members = f"jw01234-o{number:03d}_t001_nircam_clear-f200w", names[200 * number : 200 * number + 200]
        task = f"calwebb_image3 {name}_i2d.fits"
        planned.append({"record": "planned", "task": task, "pipeline": "calwebb_image3", "path": name})
        planned[-1] |= {"settings": "calwebb_image3 ", "members": [f"{member}_cal.fits" for member in members]}
        products = {"i2d": f"{name}_i2d.fits", **{f"crf:{i}": f"{member}_crf.fits" for i, member in enumerate(members)}}
        begun = max(free) + 10 * number
        place = {"worker": "node0:0", "started": begun, "census": {}}
        record = finished(task, IMAGE3, products, rng, **place)
        done.append({**record, "time": begun + record["wall"]})
    if end:
        done.append({"record": "end", "status": "done", "time": max(free) + 10 * (exposures // 200 + 1)})
    Path(journal_path(folder)).write_bytes(b"".join(map(line_of, [*lines, *planned, *done])))
    return names
