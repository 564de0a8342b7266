"""A small CRDS cache in the real grammar, made with text only, and access to a real context where there is one."""

from __future__ import annotations

import hashlib
import os
import pprint
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

SUBARRAY = {"SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": 2048, "SUBSIZE2": 2048, "FASTAXIS": -1, "SLOWAXIS": 2}


def write_mapping(folder: Path, name: str, header: dict, selector: str) -> None:
    """Write a mapping with the checksum rule of CRDS: SHA-1 of the text without the lines that contain sha1sum."""
    lines = [f"    {key!r} : {value!r},\n" for key, value in {**header, "name": name}.items()]
    before = "header = {\n" + "".join(lines)
    after = f"}}\n\nselector = {selector}\n"
    digest = hashlib.sha1((before + after).encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(before + f"    'sha1sum' : '{digest}',\n" + after)


def rmap_text(rules: dict) -> str:
    """Match({values: UseAfter({date: file})}) as text."""
    body = ""
    for values, dates in rules.items():
        body += f"    {values!r} : UseAfter({{\n"
        body += "".join(f"        {date!r} : {name!r},\n" for date, name in dates.items())
        body += "    }),\n"
    return "Match({\n" + body + "})"


class Cache:
    """A CRDS cache under `root` with context jwst_0001.pmap; add rules with `rmap`, then `finish`."""

    context = "jwst_0001.pmap"

    def __init__(self, root: Path):
        self.root = root
        self.mappings = root / "mappings" / "jwst"
        self.imaps: dict[str, dict[str, str]] = {}

    def rmap(self, instrument: str, reftype: str, parkey: tuple[str, ...], rules: dict, **header) -> None:
        name = f"jwst_{instrument}_{reftype}_0001.rmap"
        keys = (parkey, ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME"))
        head = {"classes": ("Match", "UseAfter"), "derived_from": "generated", "filekind": reftype.upper()}
        head |= {"instrument": instrument.upper(), "mapping": "REFERENCE", "observatory": "JWST", "parkey": keys}
        write_mapping(self.mappings, name, {**head, **header}, rmap_text(rules))
        self.imaps.setdefault(instrument, {})[reftype.upper()] = name

    def not_applicable(self, instrument: str, *reftypes: str) -> None:
        self.imaps.setdefault(instrument, {}).update({reftype.upper(): "N/A" for reftype in reftypes})

    def finish(self, bad_files: tuple[str, ...] = ()) -> None:
        top = {}
        for instrument, entries in self.imaps.items():
            name = f"jwst_{instrument}_0001.imap"
            head = {"derived_from": "generated", "instrument": instrument.upper(), "mapping": "INSTRUMENT"}
            head |= {"observatory": "JWST", "parkey": ("REFTYPE",)}
            write_mapping(self.mappings, name, head, pprint.pformat(entries))
            top[instrument.upper()] = name
        head = {"derived_from": "generated", "mapping": "PIPELINE", "observatory": "JWST"}
        write_mapping(self.mappings, self.context, {**head, "parkey": ("META.INSTRUMENT.NAME",)}, pprint.pformat(top))
        write_config(self.root, self.context, bad_files)

    def path(self, instrument: str, name: str) -> Path:
        folder = self.root / "references" / "jwst" / instrument
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name


def write_config(root: Path, context: str, bad_files: tuple[str, ...] = ()) -> None:
    folder = root / "config" / "jwst"
    folder.mkdir(parents=True, exist_ok=True)
    info = {"observatory": "jwst", "operational_context": context, "bad_files_list": list(bad_files)}
    info |= {"force_remote_mode": False, "last_synced": "2024-01-01 00:00:00", "connected": False}
    (folder / "server_config").write_text(repr(info))
    (folder / "ref_cache_subdir_mode").write_text("instrument")


def forget_crds() -> None:
    """Empty the memories of the crds client, which know nothing of another CRDS_PATH."""
    from crds.core import config, utils

    utils.clear_function_caches()
    config.CRDS_REF_SUBDIR_MODE = "None"


@pytest.fixture
def crds_environment(monkeypatch):
    """Set CRDS_PATH and CRDS_CONTEXT for one test: `use(path, context)`."""

    def use(path, context):
        for name in "PATH PATH_SINGLE REFPATH MAPPATH CFGPATH CONTEXT SERVER_URL MODE READONLY_CACHE".split():
            monkeypatch.delenv(f"CRDS_{name}", raising=False)
        monkeypatch.setenv("CRDS_PATH", str(path))
        if context:
            monkeypatch.setenv("CRDS_CONTEXT", context)
        monkeypatch.delenv("STPIPE_DISABLE_CRDS_STEPPARS", raising=False)
        forget_crds()

    yield use
    forget_crds()


@pytest.fixture
def cache(tmp_path, crds_environment) -> Cache:
    """An empty synthetic cache, in use."""
    crds_environment(tmp_path / "crds", Cache.context)
    return Cache(tmp_path / "crds")


@pytest.fixture
def make_cache():
    """Make an empty synthetic cache elsewhere: `make_cache(root)`."""
    return Cache


@pytest.fixture
def mapping_writer():
    return write_mapping


@pytest.fixture
def write_reference():
    return image_reference


@pytest.fixture
def real_cache(tmp_path, crds_environment) -> tuple[Path, str]:
    """A copy of the mappings of a real context, in use, and its name. No reference files."""
    root = os.environ.get("JWSTDASK_REALDATA")
    if not root or not (Path(root) / "crds_contexts").is_dir():
        pytest.skip("JWSTDASK_REALDATA is not set to a folder with crds_contexts")
    source = Path(root) / "crds_contexts" / "mappings" / "jwst"
    target = tmp_path / "crds" / "mappings" / "jwst"
    target.parent.mkdir(parents=True)
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    context = sorted(path.name for path in target.glob("*.pmap"))[-1]
    write_config(tmp_path / "crds", context)
    crds_environment(tmp_path / "crds", context)
    return tmp_path / "crds", context


@pytest.fixture
def real_data() -> Path:
    """Folder of real reference files."""
    root = os.environ.get("JWSTDASK_REALDATA")
    if not root:
        pytest.skip("JWSTDASK_REALDATA is not set")
    return Path(root)


def image_reference(path, arrays: dict[str, np.ndarray], dq_def=None, **keywords) -> Path:
    """Write a FITS reference of image extensions; `dq_def` is a list of (bit, value, name)."""
    header = {"TELESCOP": "JWST", "INSTRUME": "NIRCAM", "DETECTOR": "NRCA1", "REFTYPE": "SUPERBIAS", **keywords}
    primary = fits.PrimaryHDU()
    primary.header.update({key: value for key, value in header.items() if value is not None})
    units: list = [primary] + [fits.ImageHDU(array, name=name.upper()) for name, array in arrays.items()]
    if dq_def is not None:
        columns = [
            fits.Column("BIT", "J", array=[row[0] for row in dq_def]),
            fits.Column("VALUE", "J", bzero=2**31, array=np.array([row[1] for row in dq_def], np.uint32)),
            fits.Column("NAME", "40A", array=[row[2] for row in dq_def]),
            fits.Column("DESCRIPTION", "80A", array=[row[2].lower() for row in dq_def]),
        ]
        units.append(fits.BinTableHDU.from_columns(columns, name="DQ_DEF"))
    fits.HDUList(units).writeto(path, overwrite=True)
    return Path(path)
