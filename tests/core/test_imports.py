"""Libraries without the parts of them that nothing here uses."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


LAZY = """
import sys
from jwstdask.core.imports import lazy_package
lazy_package("crds")
"""


def test_submodules_do_not_execute_their_package():
    code = "from crds.core import config, rmap; from crds import jwst\n"
    code += "print(jwst.__name__, 'crds.bestrefs' in sys.modules)"
    assert run(LAZY + code).split() == ["crds.jwst", "False"]


@pytest.mark.parametrize(
    "code",
    [
        "import crds; print(crds.getreferences.__name__, crds.rmap.__name__)",
        "from crds import getreferences, rmap; print(getreferences.__name__, rmap.__name__)",
        "from crds import *; import crds.rmap; print(getreferences.__name__, crds.rmap.__name__)",
    ],
)
def test_names_of_the_package_are_there_when_asked_for(code):
    expected = ["getreferences", "crds.core.rmap"]
    assert run(code).split() == expected
    assert run(LAZY + "from crds.core import config\n" + code).split() == expected


def test_a_name_that_is_not_there_is_an_attribute_error():
    code = "import crds\ntry:\n    crds.nothing\nexcept AttributeError as error:\n    print(error)"
    assert run(LAZY + code) == run(code) == "module 'crds' has no attribute 'nothing'\n"


def test_packages_imported_before_or_missing_stay():
    code = (
        "import json\nfrom jwstdask.core.imports import lazy_package\nlazy_package('json'); lazy_package('no_such')\n"
    )
    assert run(code + "import sys; print(json.dumps(1), 'no_such' in sys.modules)").split() == ["1", "False"]


STANDS_IN = """
import sys
from jwstdask.core.imports import postponed
with postponed("astropy.time", "Time"):
    from astropy.time import Time
"""


def test_what_is_postponed_is_imported_when_called():
    code = """
print(isinstance("2026-01-01", Time), isinstance(1, (Time, int)), "astropy.time" in sys.modules)
now = Time("2026-01-01")
import astropy.time
print(type(now) is astropy.time.Time, isinstance(now, Time), now.isot)
"""
    assert run(STANDS_IN + code).split() == ["False", "True", "False", "True", "True", "2026-01-01T00:00:00.000"]


def test_other_names_and_other_threads_get_the_module_itself():
    code = """
from concurrent.futures import ThreadPoolExecutor
from jwstdask.core.imports import postponed
def ask():
    from astropy.time import Time
    return isinstance(Time, type)
with ThreadPoolExecutor(1) as threads:
    threads.submit(int).result()
    with postponed("astropy.time", "Time"):
        print(threads.submit(ask).result())
        from astropy.time import Time, TimeDelta
print(isinstance(Time, type), isinstance(TimeDelta, type))
from astropy.time import Time
print(Time.__module__)
with postponed("astropy.time", "Time"):
    from astropy.time import Time
print(isinstance(Time, type))
"""
    assert run(code).split() == ["True", "True", "True", "astropy.time.core", "True"]


def test_splines_and_rules_without_what_they_do_not_use():
    code = """
import sys
import numpy as np
from jwstdask.kernels.emicorr import spline_pieces
from jwstdask.refs.crds import _timestamp
spline_pieces(np.arange(9.0))
print(_timestamp("2026-01-01T00:00:00"), "scipy.optimize" in sys.modules, "astropy.time" in sys.modules)
from scipy.interpolate import make_smoothing_spline
print(make_smoothing_spline(np.arange(9.0), np.arange(9.0)).k)
from crds.core import timestamp
from astropy.time import Time
print(timestamp.reformat_date(Time("2026-01-01T00:00:00")))
"""
    date = ["2026-01-01", "00:00:00"]
    assert run(code).split() == [*date, "False", "False", "3", *date]


def test_numba_multiplies_matrices_all_the_same():
    code = """
import sys
from jwstdask.core.imports import numba_without_blas
numba_without_blas()
import numba, numpy as np
@numba.njit
def twice(a):
    return a + a
twice(1.0)
print("scipy.linalg" in sys.modules)
@numba.njit
def products(a, b):
    return np.dot(a, b)[0, 0], np.correlate(a[0], b[0])[0], round(np.linalg.det(a))
print(*products(2 * np.eye(3), np.ones((3, 3))), "scipy.linalg" in sys.modules)
"""
    assert run(code).split() == ["False", "2.0", "2.0", "8", "True"]


LEAN = """
from jwstdask.core.imports import numba_without_parsed_kernels
numba_without_parsed_kernels()
import numba, numpy as np
from jwstdask.kernels import sort
values = np.array([3.0, 1.0, 2.0])
print(sort.median(values.copy(), 3))
(loaded,) = [compiled.library for compiled in sort.median.overloads.values()]
"""


def test_kernels_from_the_cache_are_parsed_when_another_calls_them(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert run(LEAN).split() == ["2.0"]
    code = (
        LEAN
        + """
print(sum(sort.median.stats.cache_hits.values()), loaded._shared_module is None)
@numba.njit
def twice(values, count):
    return 2 * sort.median(values, count)
print(twice(values, 3), loaded._shared_module is None)
"""
    )
    assert run(code).split() == ["2.0", "1", "True", "4.0", "False"]
