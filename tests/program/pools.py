"""Pools for the tests of associations: random ones of every mode, and jwst's associations of a pool."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

COLUMNS = (
    "filename obs_id program obs_num visit visitype act_id exp_type instrume detector channel targetid pntgtype "
    "expspcin dithptin mostilno filter pupil patttype numdthpt patt_num subpxpts subarray grating fxd_slit band "
    "asn_candidate bkgdtarg is_imprt is_psf tsovisit nints msametfl msastate opmode lamp dms_note exposerr"
).split()

# Column to the words among which it is drawn; "-" is not specified. A word can be there twice to be drawn more often.
MODES: dict[str, dict[str, str]] = {
    "miri image": {"instrume": "miri", "exp_type": "mir_image", "detector": "mirimage", "filter": "f560w f770w"}
    | {"subarray": "full sub64"},
    "lrs": {"instrume": "miri", "detector": "mirimage", "filter": "p750l p750l f560w", "subarray": "full"}
    | {"exp_type": "mir_lrs-fixedslit mir_lrs-fixedslit mir_taconfirm mir_lrs-slitless mir_tacq"}
    | {"patttype": "along-slit-nod along-slit-nod -", "patt_num": "1 2 - 3"},
    "mrs": {"instrume": "miri", "exp_type": "mir_mrs mir_mrs mir_mrs mir_tacq", "detector": "mirifushort mirifulong"}
    | {"band": "short long", "channel": "12 34", "subarray": "full"},
    "miri coronagraphy": {"instrume": "miri", "exp_type": "mir_lyot mir_4qpm mir_tacq", "detector": "mirimage"}
    | {"filter": "f1065c", "subarray": "masklyot mask1065"},
    "miri slitless": {"instrume": "miri", "exp_type": "mir_wfss mir_image", "detector": "mirimage"}
    | {"filter": "p750l f770w", "subarray": "full"},
    "nircam image and slitless": {"instrume": "nircam", "exp_type": "nrc_image nrc_wfss", "subarray": "full"}
    | {"detector": "nrcalong nrcblong nrca1", "filter": "f444w f322w2", "pupil": "clear grismr grismc"}
    | {"channel": "long short"},
    "nircam coronagraphy": {"instrume": "nircam", "exp_type": "nrc_coron nrc_coron nrc_tacq", "filter": "f210m"}
    | {"detector": "nrca1 nrca2 nrca4 nrcalong", "pupil": "maskrnd maskbar", "channel": "long short"}
    | {"subarray": "full sub640"},
    "nircam time series": {"instrume": "nircam", "exp_type": "nrc_tsgrism nrc_tsimage nrc_tacq", "filter": "f444w"}
    | {"detector": "nrcalong nrcblong nrca3", "pupil": "clear grismr", "subarray": "sub164 sub41stripe1_dhs"},
    "niriss slitless": {"instrume": "niriss", "exp_type": "nis_wfss nis_image", "detector": "nis", "subarray": "full"}
    | {"filter": "gr150r gr150c clear", "pupil": "f115w f200w"},
    "ami": {"instrume": "niriss", "exp_type": "nis_ami nis_ami nis_tacq", "detector": "nis", "filter": "f480m"}
    | {"pupil": "nrm", "subarray": "sub80 full"},
    "soss": {"instrume": "niriss", "exp_type": "nis_soss", "detector": "nis", "filter": "clear f277w"}
    | {"pupil": "gr700xd", "subarray": "substrip256", "nints": "1 4", "patttype": "- 2-point-nod"},
    "fixed slit": {"instrume": "nirspec", "exp_type": "nrs_fixedslit nrs_fixedslit nrs_fixedslit nrs_wata"}
    | {"detector": "nrs1 nrs2", "filter": "f290lp clear", "grating": "g395h prism g395m"}
    | {"fxd_slit": "s200a1 s200a2 s1600a1 s400a1 -", "subarray": "subs200a1 allslits", "subpxpts": "1 2 -"}
    | {"numdthpt": "2 5 10", "patt_num": "1 2 3 4", "patttype": "- 2-point-nod"},
    "ifu": {"instrume": "nirspec", "exp_type": "nrs_ifu nrs_ifu nrs_ifu nrs_confirm", "detector": "nrs1 nrs2"}
    | {"filter": "f290lp f100lp", "grating": "g395h g140h g395m", "subarray": "full"}
    | {"patttype": "4-point-nod cycling - 2-point-nod"},
    "msa": {"instrume": "nirspec", "exp_type": "nrs_msaspec nrs_msaspec nrs_msaspec nrs_msata", "filter": "f290lp"}
    | {"detector": "nrs1 nrs2", "grating": "g395h", "subarray": "full", "msametfl": "a.fits b.fits -"}
    | {"subpxpts": "1 2 -", "numdthpt": "3 6", "patt_num": "1 2 3 4"},
    "lamp": {"instrume": "nirspec", "exp_type": "nrs_autoflat nrs_autowave nrs_lamp", "detector": "nrs1 nrs2"}
    | {"filter": "opaque f290lp", "grating": "g395h mirror prism", "subarray": "full", "msametfl": "a.fits -"}
    | {"opmode": "msaspec ifu fixedslit image grating-only", "lamp": "flat3 line4 nolamp -"},
    "bright object": {"instrume": "nirspec", "exp_type": "nrs_brightobj nrs_wata", "detector": "nrs1 nrs2"}
    | {"filter": "f290lp", "grating": "g395h", "fxd_slit": "s1600a1", "subarray": "sub2048"},
    "guider": {"instrume": "fgs", "exp_type": "fgs_image fgs_focus", "detector": "guider1", "subarray": "full"},
    "wavefront": {"instrume": "nircam", "exp_type": "nrc_image", "detector": "nrca1 nrca3", "filter": "f212n"}
    | {"pupil": "clear wlp8", "channel": "short", "subarray": "full", "visitype": "prime_wfsc_sensing_control"}
    | {"patttype": "wfsc -", "dms_note": "- - wfsc_los_jitter"},
}
# Chance of a flag, where it is used at all.
_FLAGS = {"bkgdtarg": 0.2, "is_imprt": 0.12, "is_psf": 0.2, "tsovisit": 0.15, "exposerr": 0.03}


def random_pool(seed: int, mode: str | None = None, exposures: int | None = None) -> list[dict[str, str]]:
    """Rows of a pool of one mode, or of one or two drawn ones: up to three observations and one more candidate."""
    draw = random.Random(seed)
    names = [mode] if mode else draw.sample(sorted(MODES), draw.choice((1, 1, 2)))
    kind = draw.choice(("background", "background", "mosaic", "group", "direct_image", "direct_image"))
    observations = draw.randint(1, 3)
    time_series = draw.random() < 0.25
    flags = draw.sample(sorted(_FLAGS), draw.randint(0, 4))
    rows = []
    for number in range(exposures or draw.randint(3, 14)):
        observation = draw.randint(1, observations)
        words = {
            "filename": f"jw00001{observation:03d}001_{number // 2:02d}_{draw.choice(('nrcalong', 'x'))}_{number:03d}"
            "_uncal.fits",
            "program": "1 1 1 2",
            "obs_num": str(observation),
            "obs_id": f"v{observation}a v{observation}b",
            "visit": "1",
            "visitype": "prime_targeted_fixed",
            "act_id": "1 02",
            "targetid": "1 1 2",
            "expspcin": "1 2 3",
            "dithptin": "1 2 3",
            "mostilno": "1 1 1 2",
            "pntgtype": "science " * 14 + "target_acquisition -",
        } | MODES[draw.choice(names)]
        row = dict.fromkeys(COLUMNS, "null")
        row |= {column: draw.choice(text.split()) for column, text in words.items()}
        if "tacq" in row["exp_type"]:
            row["pntgtype"] = draw.choice(("target_acquisition", "science"))
        row |= {flag: "t" for flag in flags if draw.random() < _FLAGS[flag]}
        if time_series:
            row["tsovisit"] = "t"
        candidates = [(f"o{observation:03d}", "observation")] + [("c1000", kind)] * (draw.random() < 0.7)
        if kind == "direct_image" and draw.random() < 0.6:
            candidates = [("c1000", kind)]
        row["asn_candidate"] = str(candidates)
        rows.append({column: "null" if value == "-" else value for column, value in row.items()})
    if draw.random() < 0.15:
        rows[-1] = rows[0] | {"targetid": "2"}
    return rows


def write(rows: list[dict[str, str]], path: Path) -> Path:
    """Write rows as a pool."""
    lines = ["|".join(COLUMNS), *("|".join(row[column] for column in COLUMNS) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def jwst_associations(path: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Name to contents of the valid associations that jwst makes of a pool."""
    from jwst.associations import config
    from jwst.associations.main import Main

    debug, disabled = config.DEBUG, logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        main = Main([str(path), *arguments])
        main.generate()
        return {
            association.asn_name: comparable(
                dict(association.data)
                | {
                    "products": [
                        {"name": product["name"], "members": [dict(member.data) for member in product["members"]]}
                        for product in association["products"]
                    ]
                }
            )
            for association in main.associations
            if association.is_valid
        }
    finally:
        config.DEBUG = debug
        logging.disable(disabled)


def comparable(tree: dict[str, Any]) -> dict[str, Any]:
    """An association without the text of its constraints, which is for people: jwst prints its own objects."""
    return {name: value for name, value in tree.items() if name != "constraints"}
