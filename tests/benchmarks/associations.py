"""Associations of the pools that jwst is tested with: seconds of jwst and of jwstdask, and whether they are the same.

    JWSTDASK_REALDATA=... python -m tests.benchmarks.associations [NAME ...]

prints a table, the smallest pool first. All pools take jwst some ten minutes. Both read the pool, make all
associations of candidates and those discovered, and write nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from jwstdask.program.generation.generate import generate
from jwstdask.program.pool import read_pool
from tests.program.pools import comparable, jwst_associations


def measure(path: Path, folder: Path) -> tuple[str, ...]:
    """A row of the table."""
    from jwst.associations.tests.helpers import combine_pools

    pool = folder / path.name
    combine_pools(str(path)).write(pool, format="ascii", delimiter="|")
    started = time.perf_counter()
    exposures = read_pool(pool)
    if "asn_candidate" not in exposures.columns:
        return path.stem, f"{len(exposures)}", "no candidates", "", "", "", ""
    made = generate(exposures)
    own = time.perf_counter() - started
    ours = {association.name: comparable(association.tree()) for association in made}
    started = time.perf_counter()
    theirs = jwst_associations(pool)
    jwst = time.perf_counter() - started
    same = ours == theirs and list(ours) == list(theirs)
    seconds = f"{jwst:.2f}", f"{own:.4f}", f"{jwst / own:.0f}"
    return path.stem, f"{len(exposures)}", f"{len(theirs)}", *seconds, "yes" if same else "NO"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names of pools; all by default")
    names = parser.parse_args().names
    root = Path(os.environ["JWSTDASK_REALDATA"]) / "associations" / "pools"
    pools = [root / f"{name}.csv" for name in names] or sorted(root.glob("*.csv"), key=lambda path: path.stat().st_size)
    print("| pool | exposures | associations | jwst (s) | jwstdask (s) | faster | same |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in pools:
            print("| " + " | ".join(measure(path, Path(folder))) + " |", flush=True)


if __name__ == "__main__":
    main()
