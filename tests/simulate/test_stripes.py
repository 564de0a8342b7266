from __future__ import annotations

import hashlib

import numpy as np
import pytest
from astropy.io import fits

from jwstdask.refs.stripes import stripe_rows
from jwstdask.simulate.stripes import READOUTS, StripedExposure, make_striped


def test_same_seed_same_bytes(tmp_path):
    def digests(folder, seed):
        make_striped(folder, [StripedExposure(READOUTS["SUB41STRIPE1_DHS"], (1, 16), ngroups=3, seed=seed)])
        return {
            str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest()
            for path in folder.rglob("*.fits")
        }

    first, again, other = (digests(tmp_path / name, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


@pytest.mark.parametrize("name", READOUTS)
def test_rows_are_those_that_references_are_cut_to(name):
    """The simulator walks over the detector by itself; its rows are those that the pipelines derive from the header."""
    readout = READOUTS[name]
    words = ("multistripe_reads1", "multistripe_skips1", "multistripe_reads2", "multistripe_skips2", "repeat_stripe",
             "interleave_reads1", "superstripe_step", "num_superstripe", "name", "fastaxis", "slowaxis", "xstart",
             "ystart", "xsize", "ysize")  # fmt: skip
    cards = readout.keywords(readout.y_start, readout.y_size)
    names = ("FASTAXIS", "SLOWAXIS", "SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2")
    values = (readout.reads1, readout.skips1, readout.reads2, readout.skips2, readout.repeat, readout.interleave,
              readout.step, readout.superstripes, readout.subarray, *(cards[card] for card in names))  # fmt: skip
    meta = {f"meta.subarray.{word}": value for word, value in zip(words, values, strict=True)}
    rows = np.array([readout.rows(stripe)[0] for stripe in range(max(readout.superstripes, 1))])
    np.testing.assert_array_equal(rows if readout.superstripes else rows[0], stripe_rows(meta))


def test_signal_follows_the_truth(tmp_path):
    """The same stripe read four times in a frame: each read sees the light of a quarter of a frame more."""
    exposure = StripedExposure(READOUTS["SUB164STRIPE4_DHS_LONG"], (1001, 32), nints=8, ngroups=3)
    made = make_striped(tmp_path, [exposure])
    readout = exposure.kept
    data = fits.getdata(made.uncals[0], "SCI").astype(float).mean(axis=0)
    rows, turns = readout.rows()
    assert sorted(set(turns)) == [0, 1, 2, 3]
    rate = made.rates[0][rows]
    usable = (data[-1] < 30000) & (rate > 0) & (turns[:, None] >= 0) & (rows[:, None] >= 4)
    seen = (data[2] - data[0])[usable] / (2 * readout.frame_time)
    # Drifts of 3 DN a read stay in the mean of eight integrations, a few percent of the median signal.
    assert np.median(seen / rate[usable]) == pytest.approx(1, abs=0.05)
    lit = usable & (rate > np.quantile(rate[usable], 0.5))
    first, last = (data[0][lit & (turns == turn)[:, None]].mean() for turn in (0, 3))
    expected = 0.75 * readout.frame_time * rate[lit & (turns == 3)[:, None]].mean()
    # Three times those drifts; without the later times of the reads the difference would vanish.
    assert last - first == pytest.approx(expected, abs=15)
    assert expected > 50
