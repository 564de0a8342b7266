"""Ramps with a wave of interference, and when their pixels are read."""

from __future__ import annotations

import numpy as np

from jwstdask.kernels import emicorr
from jwstdask.kernels.emicorr import Readout

READOUT = Readout(ny=12, nx=40, groups=7, samples=1, row=28, reset=8512)
LATE = Readout(ny=6, nx=32, groups=5, samples=9, row=90, reset=0, late_packet=True)
TILES = [(12, 40), (5, 40), (4, 7), (1, 3)]


def shape_of(bins, seed=0):
    phase = (np.arange(bins) + 0.5) / bins
    third = np.random.default_rng(seed).uniform(0.1, 0.4)
    return np.sin(2 * np.pi * phase) + third * np.cos(6 * np.pi * phase)


def clocks(readout, integrations):
    """Clocks of every packet since the first, (integration, group, y, packet); one Python number after the other."""
    result = np.empty((integrations, readout.groups, readout.ny, readout.packets), object)
    now = 0
    for i in range(integrations):
        for group in range(readout.groups):
            for y in range(readout.ny):
                for p in range(readout.packets):
                    late = readout.late_packet and p == readout.packets - 1
                    result[i, group, y, p] = now + p * readout.samples + (3 + 2**32 if late else 0)
                now += readout.row
            now += (1024 - readout.ny) * 7
        now += readout.reset
    return result


def turns(readout, integrations, period):
    return (clocks(readout, integrations) / period).astype(float)


def block(ramp, rows, columns):
    return np.ascontiguousarray(ramp[..., rows, columns])


def tiles(readout, tile):
    for y in range(0, readout.ny, tile[0]):
        for x in range(0, readout.nx, tile[1]):
            yield slice(y, min(y + tile[0], readout.ny)), slice(x, min(x + tile[1], readout.nx))


def exposure(readout, integrations, seed, period=None, amplitude=5.0, bins=64):
    rng = np.random.default_rng(seed)
    shape = (integrations, readout.groups, readout.ny, readout.nx)
    flux = rng.gamma(2, 10, shape[2:])
    flux[rng.random(shape[2:]) < 0.05] *= 30
    ramp = 12000 + rng.normal(0, 300, shape[2:]) + flux * np.arange(readout.groups)[:, None, None]
    ramp = ramp + rng.normal(0, 4, shape)
    if period is not None:
        noise = emicorr.wave_at(emicorr.spline_pieces(shape_of(bins)), turns(readout, integrations, period) + 0.37)
        ramp += amplitude * np.repeat(noise, 4, axis=-1)
    pixeldq = np.where(rng.random(shape[2:]) < 0.05, 1, 0).astype(np.uint32)
    return ramp.astype(np.float32), pixeldq
