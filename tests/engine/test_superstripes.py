"""Superstripes put together to a frame: the arrays, metadata and tables of jwst."""

from __future__ import annotations

import numpy as np
import pytest

from jwstdask.core.block import RampBlock, Window
from jwstdask.core.errors import InputError
from jwstdask.engine.superstripes import join_in_memory
from jwstdask.refs.stripes import Superstripes

WORDS = ("multistripe_reads1", "multistripe_skips1", "multistripe_reads2", "multistripe_skips2", "repeat_stripe",
         "interleave_reads1", "superstripe_step", "num_superstripe")  # fmt: skip


def readout(axes, corner, size, words, name="SUB64P", noutputs=1, nframes=1, groupgap=0, start=1):
    """Metadata of an exposure of two integrations and three groups; `words` in the order of `WORDS`."""
    nints = 2 * words[-1]
    meta = {f"meta.subarray.{word}": number for word, number in zip(WORDS, words, strict=True)}
    return meta | {
        "meta.instrument.name": "NIRISS" if "SOSS" in name else "NIRCAM",
        "meta.subarray.name": name,
        "meta.subarray.fastaxis": axes[0],
        "meta.subarray.slowaxis": axes[1],
        "meta.subarray.xstart": corner[0],
        "meta.subarray.ystart": corner[1],
        "meta.subarray.xsize": size[0],
        "meta.subarray.ysize": size[1],
        "meta.exposure.nints": nints,
        "meta.exposure.ngroups": 3,
        "meta.exposure.nframes": nframes,
        "meta.exposure.groupgap": groupgap,
        "meta.exposure.noutputs": noutputs,
        "meta.exposure.integration_start": start,
        "meta.exposure.integration_end": None if start is None else start + nints - 1,
        "meta.exposure.zero_frame": True,
    }


READOUTS = {
    "rows from the other end": readout((1, -2), (1, 2048), (6, 514), (4, 0, 510, 0, 1, 1, 510, 4)),
    "rows": readout((-1, 2), (1, 1), (6, 124), (4, 0, 120, 0, 1, 1, 120, 17), start=35),
    "no reference rows": readout((-1, 2), (5, 101), (6, 8), (0, 0, 0, 0, 0, 0, 8, 8), start=None),
    "read four times": readout((1, -2), (1851, 2046), (12, 8), (1, 165, 1, 0, 1, 0, 1, 16), "SUB64P_SUPSTP002"),
    "four outputs, averaged frames": readout(
        (1, -2), (1, 2048), (2048, 12), (1, 165, 2, 0, 1, 0, 2, 5), noutputs=4, nframes=2, groupgap=3
    ),
    "few columns": readout((-1, 2), (1, 3), (6, 9), (1, 5, 2, 0, 1, 0, 2, 4), noutputs=1),
    "several parts a superstripe": readout((-1, 2), (1, 3), (6, 14), (2, 9, 4, 13, 0, 0, 5, 3)),
    "interleaved": readout((-1, 2), (1, 3), (6, 18), (2, 9, 4, 1, 1, 1, 40, 3)),
    "overlapping": readout((-1, 2), (1, 3), (6, 14), (2, 9, 12, 0, 0, 0, 5, 4)),
    "columns": readout((-2, -1), (2048, 1793), (208, 6), (4, 0, 204, 0, 1, 1, 204, 10), "SUB204STRIPE_SOSS"),
    "columns from the left": readout((2, 1), (1, 1793), (64, 6), (4, 0, 60, 0, 1, 1, 60, 34), "SUB60STRIPE_SOSS"),
}


def exposure(meta, seed):
    """A block of the whole exposure with noise everywhere, and its INT_TIMES."""
    rng = np.random.default_rng(seed)
    shape = [
        meta[f"meta.{name}"] for name in ("exposure.nints", "exposure.ngroups", "subarray.ysize", "subarray.xsize")
    ]
    count = meta["meta.subarray.num_superstripe"]
    names = [f"int_{part}_{scale}" for scale in ("MJD_UTC", "BJD_TDB") for part in ("start", "mid", "end")]
    times = np.zeros(shape[0], [("integration_number", "i4"), *((name, "f8") for name in names)])
    times["integration_number"] = np.arange(shape[0]) + 1
    for name in names:
        times[name] = 60000 + rng.random(shape[0])
    block = RampBlock(
        Window.plain(0, shape[2], 0, shape[3]),
        rng.normal(0, 100, shape).astype(np.float32),
        rng.integers(0, 256, shape).astype(np.uint8),
        rng.integers(0, 2**32, (count, *shape[2:])).astype(np.uint32),
        rng.normal(0, 100, (shape[0], *shape[2:])).astype(np.float32),
    )
    return block, times


def oracle(meta, block, times):
    from jwst.lib.stripe_utils import collate_superstripes
    from stdatamodels.jwst.datamodels import SuperstripeRampModel

    model = SuperstripeRampModel(data=block.sci.copy())
    model.groupdq, model.zeroframe = block.groupdq.copy(), block.zeroframe.copy()
    for name, value in meta.items():
        model[name] = value
    model.pixeldq, model.int_times = block.pixeldq.copy(), times.copy()
    return collate_superstripes(model)


@pytest.mark.parametrize("kind", READOUTS)
def test_as_the_oracle(kind):
    meta = READOUTS[kind]
    block, times = exposure(meta, seed=len(kind))
    frame, stripes = oracle(meta, block, times), Superstripes.of(meta)
    found = join_in_memory(stripes, meta, block)
    for name, theirs in (("sci", "data"), *((name, name) for name in ("pixeldq", "groupdq", "zeroframe"))):
        np.testing.assert_array_equal(found[name], getattr(frame, theirs), err_msg=name)
    assert stripes.shape(block.sci.shape) == frame.data.shape
    after = stripes.metadata(meta)
    for name, value in frame.to_flat_dict(include_arrays=False).items():
        if name in after and "read_times" not in name:
            assert after[name] == value, name
    given = frame.meta.exposure.read_times
    assert (given is None or len(given) == 0) == ("meta.exposure.read_times" not in after)
    if given is not None and len(given):
        np.testing.assert_array_equal(after["meta.exposure.read_times"], [list(times) for times in given])
    assert not [name for name in after if name.rpartition(".")[2] in WORDS]
    tables = stripes.tables(meta, times)
    for name in ("int_times", "int_times_stripe"):
        theirs = getattr(frame, name)
        for column in theirs.dtype.names:
            np.testing.assert_array_equal(tables[name][column], theirs[column], err_msg=f"{name} {column}")


def test_the_exposure_is_left_as_it_was():
    meta = READOUTS["overlapping"]
    block, times = exposure(meta, 1)
    before = [array.copy() for array in (block.sci, block.groupdq, block.pixeldq, block.zeroframe, times)]
    stripes = Superstripes.of(meta)
    join_in_memory(stripes, meta, block)
    stripes.tables(meta, times)
    for array, copy in zip((block.sci, block.groupdq, block.pixeldq, block.zeroframe, times), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_without_first_frames_and_times():
    meta = READOUTS["rows"] | {"meta.exposure.zero_frame": False}
    block, times = exposure(meta, 2)
    stripes = Superstripes.of(meta)
    assert "zeroframe" not in join_in_memory(stripes, meta, block)
    assert stripes.tables(meta, None) == {}
    assert len(stripes.tables(meta, times[:0])["int_times"]) == 0
    with pytest.raises(InputError, match=r"INT_TIMES has 33 rows for superstripes in 17 parts"):
        stripes.tables(meta, times[1:])


def test_keywords_that_contradict_each_other():
    with pytest.raises(InputError, match=r"stripes of 514 rows do not fill the 513 rows"):
        Superstripes.of(READOUTS["rows from the other end"] | {"meta.subarray.ysize": 513})


def test_index_of_superstripes():
    """Steps see the integrations of one superstripe after the other, as views."""
    block, _ = exposure(READOUTS["overlapping"], 3)
    for index, (place, part) in enumerate(block.superstripes()):
        assert place == index
        np.testing.assert_array_equal(part.sci, block.sci[index::4])
        part.sci += 1
        part.pixeldq[...] = index
    assert np.array_equal(np.unique(block.pixeldq), np.arange(4))
    plain = RampBlock(block.window, block.sci, block.groupdq, block.pixeldq[0])
    ((place, part),) = plain.superstripes()
    assert part is plain
    assert plain.pixeldq[place].shape == plain.pixeldq.shape
