"""What was simulated is found again: rates, fluxes and positions."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

PIXEL = 31.0
"""Side of a pixel [mas]."""


@pytest.mark.parametrize("detector", ["nrca1", "nrca3"])
def test_rates_scatter_by_their_errors_around_the_truth(products, detector):
    program = products.programs("mosaic")
    roots = [root for root in program.exposure_truth if root.endswith(detector)]
    assert len(roots) == 4
    for root in roots:
        with fits.open(products.program() / f"{root}_rate.fits") as hdus:
            good = hdus["DQ"].data == 0
            truth = program.rate(root)
            pull = ((hdus["SCI"].data - truth) / hdus["ERR"].data)[good & (truth < 5)]
        # 1/f noise is correlated and not in ERR, hence 5 to 15 % more; it also leaves a pedestal, since only two edges
        # of the subarray have reference pixels
        assert 0.95 < 1.4826 * np.median(np.abs(pull - np.median(pull))) < 1.2
        assert abs(np.median(pull)) < 0.3


def test_catalogue_recovers_fluxes_and_positions(products):
    program = products.programs("mosaic")
    (path,) = products.program().glob("*_cat.ecsv")
    catalogue = Table.read(path, format="ascii.ecsv")
    stars = program.sources()
    stars = stars[stars["type"] == "star"]
    places = SkyCoord(stars["ra"], stars["dec"])
    index, separation, _ = catalogue["sky_centroid"].match_to_catalog_sky(places)
    matched = separation < 0.1 * units.arcsec
    assert matched.sum() >= 40
    flux = np.asarray(catalogue["aper_total_flux"])[matched] / np.asarray(stars["flux"])[index[matched]]
    # an aperture that reaches over the edge of the mosaic has no flux
    flux = flux[np.isfinite(flux)]
    assert flux.size >= 30
    assert np.median(flux) == pytest.approx(1, abs=0.01)
    east, north = places[index[matched]].spherical_offsets_to(catalogue["sky_centroid"][matched])
    # the alignment is relative: a shift common to all exposures remains, from errors of the pointing of 20 mas each
    offset = np.array([np.median(axis.to_value("mas")) for axis in (east, north)])
    assert np.all(np.abs(offset) < 20)
    residual = np.hypot(east.to_value("mas") - offset[0], north.to_value("mas") - offset[1])
    assert np.median(residual) < 0.05 * PIXEL
