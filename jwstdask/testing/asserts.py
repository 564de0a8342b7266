"""Assertions: nothing is computed, and chunks do not change a bit."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from unittest import mock

import dask
import numpy as np
import xarray as xr

from jwstdask.io.layout import FitsLayout, open_layout


class Laziness:
    """What happened inside `assert_lazy`.

    Attributes
    ----------
    computes
        Calls of the dask scheduler.
    samples
        Path to the number of array elements read from it.
    """

    def __init__(self) -> None:
        self.computes = 0
        self.samples: dict[str, int] = {}

    def scheduler(self, graph: Any, keys: Any, **options: Any) -> Any:
        """A dask scheduler, one task after the other, that counts its calls."""
        self.computes += 1
        return dask.get(graph, keys, **options)

    def samples_of(self, path: str | os.PathLike[str]) -> int:
        """Array elements read from a file."""
        return self.samples.get(os.path.abspath(os.fspath(path)), 0)


@contextlib.contextmanager
def assert_lazy(computes: int = 0, files: Iterable[str | os.PathLike[str]] = ()) -> Iterator[Laziness]:
    """Assert that at most so many computations start inside, and that no pixel of some files is read.

    Parameters
    ----------
    computes
        Calls of the dask scheduler that are allowed.
    files
        Exposures of which no pixel may be read; headers may.

    Examples
    --------
    >>> from jwstdask.testing import assert_lazy
    >>> with assert_lazy(files=["jw1_uncal.fits"]):  # doctest: +SKIP
    ...     tree = Detector1Pipeline().apply("jw1_uncal.fits")
    """
    counts = Laziness()

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def read(layout: FitsLayout, *arguments: Any, **options: Any) -> Any:
            array = original(layout, *arguments, **options)
            path = os.path.abspath(layout.path)
            counts.samples[path] = counts.samples.get(path, 0) + array.size
            return array

        return read

    with (
        dask.config.set(scheduler=counts.scheduler),
        mock.patch.object(FitsLayout, "read", counting(FitsLayout.read)),
        mock.patch.object(FitsLayout, "raw", counting(FitsLayout.raw)),
    ):
        yield counts
    if counts.computes > computes:
        raise AssertionError(f"{counts.computes} computations were started, {computes} allowed")
    for path in files:
        if counts.samples_of(path):
            raise AssertionError(f"{counts.samples_of(path)} pixels of {path} were read")


def _datasets(value: Any) -> dict[str, xr.Dataset]:
    if isinstance(value, xr.DataTree):
        return {node.path: node.to_dataset(inherit=False) for node in value.subtree}
    if isinstance(value, xr.Dataset):
        return {"/": value}
    if isinstance(value, Mapping):
        return {str(name): item for name, item in value.items()}
    return {str(index): item for index, item in enumerate(value)}


def assert_same_bits(first: Any, second: Any) -> None:
    """Assert that two Datasets, trees, mappings or sequences of Datasets hold the same variables with the same bits.

    NaNs count by their bits too. Attributes and coordinates are not compared.
    """
    left, right = _datasets(first), _datasets(second)
    assert left.keys() == right.keys(), f"{sorted(left)} against {sorted(right)}"
    for node, dataset in left.items():
        other = right[node]
        assert set(dataset.data_vars) == set(other.data_vars), f"{node}: {set(dataset)} against {set(other)}"
        for name in dataset.data_vars:
            a, b = np.asarray(dataset[name].values), np.asarray(other[name].values)
            assert a.dtype == b.dtype, f"{node}{name}: {a.dtype} against {b.dtype}"
            assert a.shape == b.shape, f"{node}{name}: {a.shape} against {b.shape}"
            if a.tobytes() != b.tobytes():
                raise AssertionError(f"{node}{name}: {_differences(a, b)}")


def _differences(a: np.ndarray, b: np.ndarray) -> str:
    if a.dtype.names is not None:
        return "tables differ"
    bits = np.dtype(f"u{a.dtype.itemsize}")
    places = np.argwhere(np.ascontiguousarray(a).view(bits) != np.ascontiguousarray(b).view(bits))
    first = tuple(int(index) for index in places[0])
    return f"{len(places)} of {a.size} values differ, the first at {first}: {a[first]!r} against {b[first]!r}"


def chunkings(ds: xr.Dataset) -> list[dict[str, int] | None]:
    """Ways to chunk an exposure: in memory, one chunk, rows, and pieces of every dimension."""
    sizes = {str(name): size for name, size in ds["sci"].sizes.items()}
    uneven = max(sizes["y"] // 3 + 1, 1)
    return [
        None,
        dict(sizes),
        {"y": uneven},
        {name: max(size // 2, 1) if name != "y" else max(uneven // 2, 1) for name, size in sizes.items()},
    ]


def assert_chunk_invariant(
    function: Callable[[xr.Dataset], Any], ds: xr.Dataset, chunks: Iterable[Mapping[str, int] | None] | None = None
) -> Any:
    """Assert that a function of an exposure gives the same bits however the exposure is chunked, and leaves it alone.

    Parameters
    ----------
    function
        Takes the Dataset; returns Datasets, a tree or a mapping of them, lazy or not.
    ds
        The exposure.
    chunks
        Ways to chunk it, None for arrays in memory; `chunkings` by default.

    Returns
    -------
    The result for the first way.
    """
    ds = ds.load()
    before = {name: variable.values.tobytes() for name, variable in ds.data_vars.items()}
    attributes = dict(ds.attrs)
    expected = None
    for index, way in enumerate(chunkings(ds) if chunks is None else chunks):
        given = ds if way is None else ds.chunk({name: size for name, size in way.items() if name in ds.dims})
        result = function(given)
        if index == 0:
            expected = result
        else:
            assert_same_bits(expected, result)
        for name, variable in ds.data_vars.items():
            assert variable.values.tobytes() == before[name], f"{name} of the input was changed"
        assert ds.attrs == attributes, "the attributes of the input were changed"
    return expected


_TIMES = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d{3}")


def product_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a product with times of writing blanked out.

    These are DATE, the same in the ASDF extension, with the checksum there of the headers that include it, and those of
    the members in the table of an association: all times of the day before the file was last changed.
    """
    with open(path, "rb") as file:
        data = file.read()
    changed = datetime.datetime.fromtimestamp(os.path.getmtime(path), datetime.UTC).replace(tzinfo=None)

    def blank(found: re.Match[bytes]) -> bytes:
        age = changed - datetime.datetime.fromisoformat(found[0].decode())
        recent = -1 <= age.total_seconds() <= 86400
        return b"#" * len(found[0]) if recent else found[0]

    data = _TIMES.sub(blank, data)
    return re.sub(rb"(_fits_hash: )[0-9a-f]{64}", rb"\g<1>" + b"#" * 64, data)


def assert_same_products(
    first: str | os.PathLike[str], second: str | os.PathLike[str], names: Iterable[str] | None = None
) -> list[str]:
    """Assert that two folders hold the same products, byte by byte but for the time of writing.

    Parameters
    ----------
    first, second
        Folders.
    names
        Products to compare; all files of the first folder by default, which must be those of the second.

    Returns
    -------
    names
        What was compared.
    """
    if names is None:
        names = sorted(os.listdir(first))
        other = sorted(os.listdir(second))
        assert names == other, f"{set(names) ^ set(other)} are in one of the folders only"
    names = [name for name in names if name.endswith(".fits")]
    assert names, "there are no products to compare"
    for name in names:
        a, b = product_bytes(os.path.join(first, name)), product_bytes(os.path.join(second, name))
        if a != b:
            raise AssertionError(f"{name}: {_where(a, b, os.path.join(first, name))}")
    return names


def _where(a: bytes, b: bytes, path: str) -> str:
    if len(a) != len(b):
        return f"{len(a)} bytes against {len(b)}"
    offset = next(index for index in range(0, len(a), 2880) if a[index : index + 2880] != b[index : index + 2880])
    for hdu in open_layout(path):
        if hdu.header_offset <= offset < hdu.data_offset:
            return f"the header of {hdu.name} differs"
        if hdu.data_offset <= offset < hdu.data_offset + hdu.data_size:
            return f"the data of {hdu.name} differ"
    return f"they differ from byte {offset} on"
