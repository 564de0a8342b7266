"""Caches and programs: the two things a user of the simulator makes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time, TimeDelta

from jwstdask.simulate.crds import write_cache
from jwstdask.simulate.detector import DetectorMaps, make_maps
from jwstdask.simulate.geometry import ARCSEC, Attitude, Distortion, Pointing, offset_on_sky
from jwstdask.simulate.instruments import Aperture, Detector, Filter, Instrument, ReadPattern
from jwstdask.simulate.instruments import instrument as find_instrument
from jwstdask.simulate.irs2 import Irs2Electronics, interleaved_bias
from jwstdask.simulate.level1b import (
    Ephemeris,
    Timing,
    Visit,
    exposure_headers,
    group_table,
    integration_times,
    write_uncal,
)
from jwstdask.simulate.miri import MiriElectronics
from jwstdask.simulate.nirspec import write_msa_metadata
from jwstdask.simulate.psf import PointSource
from jwstdask.simulate.ramps import Effects, Electronics, ReferenceArrays, simulate_ramp
from jwstdask.simulate.references import PSF_RADIUS, Request, make_references, pixel_scale
from jwstdask.simulate.sky import Sky, ab_magnitude, render, scatter_sources
from jwstdask.simulate.spectra import spectra

Progress = Callable[[str], None]

SHAPE = ("half_light_radius", "sersic_index", "axis_ratio", "position_angle")
"""Columns that describe a galaxy."""


def _silent(message: str) -> None:
    """Default progress callback."""


@dataclass(frozen=True)
class Cache:
    """A synthetic CRDS cache.

    Attributes
    ----------
    path
        Value for CRDS_PATH.
    context
        Value for CRDS_CONTEXT.
    instrument, detectors, filters
        What it has references for.
    subarrays
        Subarrays that it has darks for; the first is the size of all references if ``small``.
    small
        All references are cut to one subarray, instead of full frames.
    files
        For every detector its reference files by kind (``"gain"``, ``"dark:SUB320"``, ``"flat:F200W"``), names without
        folder.
    readpatt
        Readout pattern that it was made for, and those like it; empty for the instrument's usual one.
    """

    path: Path
    context: str
    instrument: str
    detectors: tuple[str, ...]
    filters: tuple[str, ...]
    subarrays: tuple[str, ...]
    small: bool
    dark_groups: int
    seed: int
    files: Mapping[str, Mapping[str, str]]
    readpatt: str = ""

    def record(self) -> dict[str, Any]:
        """What is kept of it on disk."""
        return {key: value for key, value in asdict(self).items() if key != "path" and (key, value) != ("readpatt", "")}

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that make CRDS use the cache without a server."""
        return {
            "CRDS_PATH": str(self.path),
            "CRDS_CONTEXT": self.context,
            "CRDS_SERVER_URL": "https://crds-serverless-mode.stsci.edu",
        }

    @property
    def references(self) -> Path:
        """Folder of the reference files."""
        return self.path / "references" / "jwst" / self.instrument.lower()

    def reference(self, detector: str, kind: str) -> Path:
        """Path of a reference of a detector, e.g. ``reference("nrca1", "gain")``."""
        name = find_instrument(self.instrument).detector(detector).name
        return self.references / self.files[name][kind]

    def request(self) -> Request:
        """The request that the cache was made from."""
        table = find_instrument(self.instrument)
        return Request(
            folder=self.references,
            instrument=table,
            detectors=tuple(table.detector(name) for name in self.detectors),
            subarrays=self.subarrays,
            small=self.small,
            filters=tuple(table.filter(name) for name in self.filters),
            dark_groups=self.dark_groups,
            seed=self.seed,
            pattern=table.read_pattern(self.readpatt or table.defaults["readpatt"]),
        )

    def detector_maps(self, detector: Detector, subarray: str) -> DetectorMaps:
        """The true detector behind the references, drawn again from the seed, in the window of a subarray."""
        request = self.request()
        aperture = request.instrument.aperture(detector, request.size)
        maps = make_maps(request.instrument, detector, aperture, request.rng("maps", detector.name))
        if subarray == request.size:
            return maps
        return maps.cut(request.instrument.aperture(detector, subarray))

    @classmethod
    def open(cls, path: str | Path) -> Cache:
        """The cache in a folder, as :func:`make_cache` left it."""
        path = Path(path)
        record = json.loads((path / "simulation.json").read_text())
        for name in ("detectors", "filters", "subarrays"):
            record[name] = tuple(record[name])
        return cls(path=path, **record)


def make_cache(
    path: str | Path,
    *,
    instrument: str = "nircam",
    detectors: Sequence[str] | None = None,
    size: str = "small",
    subarray: str | Sequence[str] | None = None,
    filters: Sequence[str] | None = None,
    readpatt: str | None = None,
    dark_groups: int = 20,
    context: str | None = None,
    seed: int = 1,
    progress: Progress = _silent,
) -> Cache:
    """Make a CRDS cache with references for some detectors.

    Those of NIRCam serve all three stages of imaging, those of the other instruments, and of grisms (SUBGRISM
    subarrays), Stage 1.

    Parameters
    ----------
    path
        Folder to make it in; becomes CRDS_PATH.
    detectors
        DETECTOR names in any case; ``nrca5`` is NRCALONG. Those, the subarray and the filters are by default the usual
        ones of the instrument.
    size
        ``"small"``: all references are delivered for ``subarray`` only. ``"full"``: full frames; darks are made for
        FULL and for ``subarray`` besides.
    subarray
        A real subarray of the detectors, or, with ``size="full"``, several.
    filters
        Filters to make flats and aperture corrections for.
    readpatt
        Pattern whose way of reading the references are for, by default that of the instrument's fast one; needed for
        the IRS2 patterns of NIRSpec and the slow ones of MIRI.
    dark_groups
        Frames in the darks. An exposure with more frames gets its dark extrapolated by the pipeline, with a warning.
    context
        Name of the context. By default ``jwst_NNNN.pmap`` with a number that depends on the other arguments, as CRDS
        keeps mappings in memory by name and a process may use several caches in turn.
    seed
        Same seed, same bytes.
    progress
        Called with a line of text now and then.

    Returns
    -------
    Cache
    """
    if size not in ("small", "full"):
        raise ValueError(f"size must be 'small' or 'full', not {size!r}")
    table = find_instrument(instrument)
    detectors = detectors or table.defaults["detectors"]
    subarray = subarray or table.defaults["subarray"]
    filters = filters or (table.defaults["filter"],)
    pattern = table.read_pattern(readpatt or table.defaults["readpatt"])
    usual = table.read_pattern(table.defaults["readpatt"])
    alike = (pattern.samples, pattern.interleaved) == (usual.samples, usual.interleaved)
    names = [subarray] if isinstance(subarray, str) else list(subarray)
    names = list(dict.fromkeys(name.upper() for name in names))
    if size == "small" and len(names) != 1:
        raise ValueError("a small cache is made for one subarray; use size='full' for several")
    if pattern.interleaved and names != ["FULL"]:
        raise ValueError(f"{pattern.name} reads full frames only, not {', '.join(names)}")
    if size == "full":
        known = [n for n in names if n != "FULL" and all(_has(table, d, n) for d in detectors)]
        names = ["FULL", *known]
    path = Path(path)
    cache = Cache(
        path=path,
        context="",
        instrument=table.name,
        detectors=tuple(dict.fromkeys(table.detector(name).name for name in detectors)),
        filters=tuple(dict.fromkeys(table.filter(name).name for name in filters)),
        subarrays=tuple(names),
        small=size == "small",
        dark_groups=dark_groups,
        seed=seed,
        files={},
        readpatt="" if alike else pattern.name,
    )
    record = cache.record()
    serial = 1000 + zlib.crc32(json.dumps(record, sort_keys=True).encode()) % 9000
    maps, files = make_references(cache.request(), progress)
    cache = replace(cache, files=files, context=context or f"jwst_{serial}.pmap")
    write_cache(path, cache.context, {table.name: maps}, serial)
    record = cache.record()
    (path / "simulation.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return cache


def _has(table: Instrument, detector: str, subarray: str) -> bool:
    try:
        table.aperture(table.detector(detector), subarray)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Program:
    """A simulated program on disk.

    Attributes
    ----------
    path
        Its folder.
    cache
        Cache that its references come from.
    uncals
        Level-1b files, exposure by exposure.
    associations
        Association files by name: ``"image3"`` (all detectors), ``"image3_<detector>"`` (``tso3`` for time series)
        and ``"image2_<rootname>"``.
    truth
        Table of the sources (ECSV).
    exposure_truth
        For every root name a FITS file: RATE (DN/s, what a perfect Stage 1 gives, flat field included), SOURCES (id, x,
        y), COSMIC_RAYS and SNOWBALLS (integration, group, y, x and strength, 0-indexed; a hit shows in
        the difference between that group and the one before).
    """

    path: Path
    cache: Cache
    uncals: tuple[Path, ...]
    associations: Mapping[str, Path]
    truth: Path
    exposure_truth: Mapping[str, Path]

    @property
    def context(self) -> str:
        """Name of the CRDS context."""
        return self.cache.context

    @property
    def association(self) -> Path:
        """The Stage 3 association of all detectors."""
        return next(path for name, path in self.associations.items() if name in ("image3", "tso3"))

    def sources(self) -> Table:
        """Truth table of the sources."""
        return Table.read(self.truth, format="ascii.ecsv")

    def rate(self, rootname: str) -> np.ndarray:
        """True rate image [DN/s], float32 (y, x)."""
        return fits.getdata(self.exposure_truth[rootname], "RATE").astype(np.float32)

    @classmethod
    def open(cls, path: str | Path) -> Program:
        """The program in a folder, as :func:`make_program` left it."""
        path = Path(path)
        record = json.loads((path / "simulation.json").read_text())
        return cls(
            path=path,
            cache=Cache.open(path / record["cache"]),
            uncals=tuple(path / name for name in record["uncals"]),
            associations={key: path / name for key, name in record["associations"].items()},
            truth=path / record["truth"],
            exposure_truth={key: path / name for key, name in record["exposure_truth"].items()},
        )


def dither_offsets(number: int, width: float, scale: float) -> np.ndarray:
    """Offsets (number, 2) [arcsec] on a sunflower spiral out to ``width``, moved to different phases of the pixel.

    The phases are those of a sequence of low discrepancy (R2, Roberts 2018), so that few dithers sample them evenly.
    """
    k = np.arange(number)
    radius = width * np.sqrt(k / max(number - 1, 1))
    angle = k * np.pi * (3 - np.sqrt(5.0))
    offsets = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    g = 1.32471795724474602596
    phase = np.stack([(k / g) % 1, (k / g**2) % 1], axis=1)
    return np.round((np.floor(offsets / scale) + phase) * scale, 6)


def _make_sky(
    rng: np.random.Generator,
    fields: Sequence[tuple[float, float, float]],
    stars: float,
    galaxies: float,
    rates: tuple[float, float],
    unit_flux: float,
    background: float,
    separation: float,
) -> Sky:
    """Sources over square fields (ra, dec, half width [arcsec]).

    ``stars`` and ``galaxies`` are numbers a square arcsecond, ``rates`` the range of total count rates [DN/s],
    ``unit_flux`` the flux [Jy] of 1 DN/s.
    """
    rows: list[dict] = []
    for ra, dec, half in fields:
        area = (2 * half) ** 2
        star_xy = scatter_sources(rng, half, separation, round(stars * area), np.zeros((0, 2)))
        galaxy_xy = scatter_sources(rng, half, 1.3 * separation, round(galaxies * area), star_xy)
        for kind, places in (("star", star_xy), ("galaxy", galaxy_xy)):
            for east, north in places:
                sky_ra, sky_dec = offset_on_sky(ra, dec, east, north)
                rate = np.exp(rng.uniform(np.log(rates[0]), np.log(rates[1])))
                if kind == "star" and len(rows) % 30 == 15:
                    rate = 2.5 * rates[1]
                row = {"type": kind, "ra": sky_ra, "dec": sky_dec, "rate": rate}
                shape = (
                    rng.uniform(0.08, 0.35),
                    rng.choice([1.0, 1.0, 1.5, 2.5, 4.0]),
                    rng.uniform(0.3, 1.0),
                    rng.uniform(0, 180),
                )
                if kind == "star":
                    shape = 0.0, 0.0, 1.0, 0.0
                row.update(zip(SHAPE, map(float, shape)))
                rows.append(row)
    names = ["type", "ra", "dec", "rate", *SHAPE]
    values = [tuple(row.values()) for row in rows] or None
    table = Table(rows=values, names=names, dtype=["U6", *[float] * (len(names) - 1)])
    table.add_column(np.arange(1, len(table) + 1), name="id", index=0)
    table["flux"] = table["rate"] * unit_flux
    table["ab_mag"] = ab_magnitude(table["flux"])
    for name, unit in (("ra", "deg"), ("dec", "deg"), ("rate", "DN/s"), ("flux", "Jy"), ("ab_mag", "mag"),
                       ("half_light_radius", "arcsec"), ("position_angle", "deg")):  # fmt: skip
        table[name].unit = unit
    table["rate"].description = "total count rate of a source on a pixel of nominal size"
    return Sky(table, background)


def make_program(
    path: str | Path,
    cache: Cache,
    *,
    detectors: Sequence[str] | None = None,
    dithers: int = 4,
    filter: str | None = None,
    subarray: str | None = None,
    readpatt: str | None = None,
    ngroups: int = 10,
    nints: int = 1,
    exp_type: str | None = None,
    tso: bool = False,
    segments: int = 1,
    zeroframe: bool | None = None,
    ra: float = 53.162,
    dec: float = -27.791,
    roll: float = 67.3,
    program: str = "01234",
    observation: str = "001",
    start: str = "2023-07-15T03:20:11.000",
    stars: int | None = None,
    galaxies: int | None = None,
    rates: tuple[float, float] | None = None,
    background: float | None = None,
    separation: float | None = None,
    dither_width: float | None = None,
    pointing_error: float = 0.0,
    effects: Effects | None = None,
    seed: int = 1,
    progress: Progress = _silent,
) -> Program:
    """Make a program of dithered exposures of a known sky, or of known spectra.

    Parameters
    ----------
    path
        Folder for the Level-1b files, associations and truth.
    cache
        From :func:`make_cache`.
    detectors
        Detectors of the cache; all by default. Only those of the filter's channel are exposed.
    dithers
        Exposures of each detector.
    filter, subarray, readpatt, ngroups, nints, exp_type, tso
        Configuration, as in the header; ``subarray`` is by default the first of the cache, the others are the usual
        ones of the instrument. NIRSpec's FILTER implies the grating, MIRI's spectrograph has bands (``"SHORT"``), and
        NIRISS takes ``"GR700XD"``.
    segments
        Files that the integrations of an exposure are spread over.
    zeroframe
        Keep the first frames; by default for patterns that average frames.
    ra, dec, roll
        Where the reference point of the first detector's aperture points [deg], and the roll of V3 there.
    stars, galaxies
        Mean numbers on one detector; by default an eighth of the side of the frame in pixels, and a sixth of that.
    rates
        Faintest and brightest total count rate [DN/s]; by default 2 and 60 % of the full well in the peak pixel at the
        end of an integration. Every thirtieth star is 2.5 times as bright as these, and saturates.
    background
        Surface brightness [MJy/sr]; by default the filter's.
    separation
        Least distance between sources [arcsec]; by default 20 pixels.
    dither_width
        Largest dither [arcsec]; by default 6 % of the aperture.
    pointing_error
        Error of the headers' pointing, a coordinate and exposure [arcsec].
    effects
        Detector effects; :meth:`Effects.none` leaves an exposure without noise.
    seed
        Same seed (and cache), same bytes.

    Returns
    -------
    Program
    """
    effects = effects or Effects()
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    table = find_instrument(cache.instrument)
    filter_ = table.filter(filter or (cache.filters[0] if table.name != "NIRCAM" else table.defaults["filter"]))
    if filter_.name not in cache.filters:
        raise ValueError(f"the cache has no references for {filter_.name}; it has {', '.join(cache.filters)}")
    chosen = [table.detector(name) for name in (detectors or cache.detectors)]
    missing = [d.name for d in chosen if d.name not in cache.detectors]
    if missing:
        raise ValueError(f"the cache has no references for {', '.join(missing)}; it has {', '.join(cache.detectors)}")
    chosen = [d for d in chosen if d.channel == filter_.channel]
    if not chosen:
        raise ValueError(f"no detector of the {filter_.channel} channel of {filter_.name} was given")
    subarray = (subarray or cache.subarrays[0]).upper()
    if subarray not in cache.subarrays:
        raise ValueError(f"the cache has no references for {subarray}; it has {', '.join(cache.subarrays)}")
    made_for = cache.request().pattern
    pattern = table.read_pattern(readpatt or made_for.name)
    if (pattern.samples, pattern.interleaved) != (made_for.samples, made_for.interleaved):
        raise ValueError(f"the cache has references for readouts like {made_for.name}, not {pattern.name}")
    if not 1 <= segments <= nints:
        raise ValueError(f"{nints} integrations cannot be spread over {segments} segments")
    exp_type = exp_type or table.defaults["exp_type"]
    zeroframe = table.name == "NIRCAM" and pattern.nframes > 1 if zeroframe is None else zeroframe
    apertures = [table.aperture(d, subarray) for d in chosen]
    timing = Timing.of(table, apertures[0], pattern, ngroups, nints)
    scale = pixel_scale(table, chosen[0])
    psf = PointSource(filter_.wavelength, filter_.width, scale, PSF_RADIUS)
    nominal_area = scale**2 * ARCSEC**2
    unit_flux = filter_.photmjsr * 1e6 * nominal_area
    dispersed = "x" if exp_type == "NRC_TSGRISM" else filter_.dispersed
    if dispersed:
        stars = galaxies = 0

    if rates is None:
        full = chosen[0].full_well / psf.peak / timing.integration
        rates = 0.02 * full, 0.6 * full
    width = 0.06 * apertures[0].x_size * scale if dither_width is None else dither_width
    offsets = dither_offsets(dithers, width, scale)
    attitude = Attitude(ra, dec, roll, apertures[0].v2_ref, apertures[0].v3_ref)
    fields = []
    for aperture in apertures:
        centre = attitude.to_sky(aperture.v2_ref, aperture.v3_ref)
        # The square field must hold the turned aperture.
        half = 0.5 * np.hypot(aperture.x_size, aperture.y_size) * scale + width
        fields.append((float(centre[0]), float(centre[1]), half))
    side = np.sqrt(apertures[0].x_size * apertures[0].y_size)
    stars = round(side / 8) if stars is None else stars
    galaxies = round(stars / 6) if galaxies is None else galaxies
    density = (side * scale) ** -2
    sky = _make_sky(
        np.random.default_rng([seed, 101]), _merged(fields), stars * density, galaxies * density, rates, unit_flux,
        filter_.background if background is None else background, 20 * scale if separation is None else separation,
    )  # fmt: skip
    truth = path / "truth_sources.ecsv"
    sky.sources.meta.update(filter=filter_.name, background_mjysr=float(sky.background), unit_flux_jy=float(unit_flux))
    sky.sources.write(truth, format="ascii.ecsv", overwrite=True)

    visit = Visit(
        program=program, observation=observation, visit="001", visit_group="02", sequence="1", activity="01",
        title="Simulated imaging of a known sky", target="SIMULATED-FIELD", ra=ra, dec=dec, start=start,
        dithers=dithers,
    )  # fmt: skip
    begin = Time(start, scale="utc")
    errors = pointing_error * np.random.default_rng([seed, 102]).standard_normal((dithers, 2))
    uncals: list[Path] = []
    truths: dict[str, Path] = {}
    for number, detector in enumerate(chosen):
        aperture = apertures[number]
        maps = cache.detector_maps(detector, subarray)
        arrays = ReferenceArrays(
            gain=maps.gain, superbias=maps.superbias, read_noise=maps.read_noise, full_well=maps.saturation,
            linearity=maps.linearity, dark_rate=maps.dark_rate, reference_pixels=maps.reference_pixels,
            reset=maps.reset,
        )  # fmt: skip
        if pattern.interleaved:
            flipped = detector.fastaxis < 0
            rng = cache.request().rng("interleaved", detector.name)
            arrays.interleaved = interleaved_bias(maps.superbias, flipped, rng)
        distortion = Distortion(table, detector, filter_.offset)
        for exposure in range(dithers):
            root = visit.rootname(exposure + 1, detector)
            progress(root)
            time = begin + TimeDelta(exposure * (timing.duration + 60.0), format="sec")
            ephemeris = Ephemeris.at(time)
            told = _dithered(attitude, apertures[0], offsets[exposure])
            real = _dithered(attitude, apertures[0], offsets[exposure] + errors[exposure])
            told_here, real_here = (a.moved_to(aperture.v2_ref, aperture.v3_ref) for a in (told, real))
            va_scale = ephemeris.aberration(told_here.ra, told_here.dec)[0]
            brightness, seen = render(sky, Pointing(aperture, distortion, real_here, va_scale), psf)
            rate = brightness / filter_.photmjsr * np.where(maps.reference_pixels, 0, maps.flat)
            rng = np.random.default_rng([seed, 103, detector.sca_num, exposure])
            if dispersed:
                full = detector.full_well / timing.integration
                light = spectra(np.random.default_rng([seed, 104, detector.sca_num]), aperture, dispersed, full)
                rate = rate + light * np.where(maps.reference_pixels, 0, maps.flat)
            ramp = simulate_ramp(
                rng, rate * maps.gain, arrays, table, aperture, pattern, ngroups, nints, effects,
                (detector.fastaxis, detector.slowaxis), zeroframe, _electronics(table, pattern),
            )  # fmt: skip
            delay = ephemeris.light_delay(visit.ra, visit.dec)
            groups = group_table(timing, ngroups, nints, time, aperture, delay)
            times = integration_times(timing, nints, time, delay)
            edges = np.linspace(0, nints, segments + 1).round().astype(int)
            for segment, (first, last) in enumerate(pairwise(edges), start=1):
                primary, science = exposure_headers(
                    table, detector, aperture, subarray, filter_, pattern, ngroups, nints, visit, exposure + 1,
                    tuple(offsets[exposure]), Pointing(aperture, distortion, told_here, va_scale), time, ephemeris,
                    exp_type, zeroframe, tso, (told.ra, told.dec),
                )  # fmt: skip
                if exp_type == "NRS_MSASPEC":
                    msa = f"jw{program}{observation}001_01_msa.fits"
                    write_msa_metadata(path / msa, dithers=dithers, program=int(program))
                    primary.update(MSAMETFL=msa, MSAMETID=1, MSASTATE="CONFIGURED")
                name = f"{root}_uncal.fits"
                if segments > 1:
                    name = f"{visit.rootname(exposure + 1, detector, segment)}_uncal.fits"
                    primary["FILENAME"] = name
                    primary["EXSEGNUM"], primary["EXSEGTOT"] = segment, segments
                    primary["INTSTART"], primary["INTEND"] = int(first) + 1, int(last)
                part = slice(int(first), int(last))
                tables = [_rows(groups, slice(part.start * ngroups, part.stop * ngroups)), _rows(times, part)]
                uncals.append(path / name)
                write_uncal(uncals[-1], primary, science, ramp.integrations(part), tables)
            truths[root] = path / f"{root}_truth.fits"
            _write_truth(truths[root], rate, seen, ramp)
    associations = {}
    if table.name == "NIRCAM":
        associations = _write_associations(path, visit, chosen, filter_, subarray, table, tso, segments)
    made = Program(path, cache, tuple(uncals), associations, truth, truths)
    record = {
        "cache": str(Path(cache.path).resolve()), "uncals": [p.name for p in uncals], "truth": truth.name,
        "associations": {k: p.name for k, p in associations.items()},
        "exposure_truth": {k: p.name for k, p in truths.items()},
    }  # fmt: skip
    (path / "simulation.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return made


def _electronics(table: Instrument, pattern: ReadPattern) -> type[Electronics]:
    """The chain that reads a detector."""
    if table.mid_infrared:
        return MiriElectronics
    return Irs2Electronics if pattern.interleaved else Electronics


def _rows(table: fits.BinTableHDU, part: slice) -> fits.BinTableHDU:
    """Some rows of a table."""
    return fits.BinTableHDU(table.data[part], name=table.name)


def _merged(fields: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """Fields that overlap become one: sources keep their distances across detectors."""
    merged: list[tuple[float, float, float]] = []
    for ra, dec, half in fields:
        for k, (other_ra, other_dec, other) in enumerate(merged):
            cos = np.cos(np.radians(dec))
            east, north = (ra - other_ra) * cos * 3600, (dec - other_dec) * 3600
            if max(abs(east), abs(north)) < half + other:
                east_range = min(-other, east - half), max(other, east + half)
                north_range = min(-other, north - half), max(other, north + half)
                centre = offset_on_sky(other_ra, other_dec, sum(east_range) / 2, sum(north_range) / 2)
                size = max(np.ptp(east_range), np.ptp(north_range)) / 2
                merged[k] = (*centre, float(size))
                break
        else:
            merged.append((ra, dec, half))
    return merged


def _dithered(attitude: Attitude, aperture: Aperture, offset: np.ndarray) -> Attitude:
    """The attitude after an offset [arcsec] in the aperture's ideal frame: the target lands at minus the offset."""
    angle = np.radians(attitude.roll + aperture.v3_idl_yangle)
    x, y = offset[0] * aperture.vidl_parity, offset[1]
    east, north = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    ra, dec = offset_on_sky(attitude.ra, attitude.dec, east, north)
    return replace(attitude, ra=ra, dec=dec)


def _write_truth(path: Path, rate: np.ndarray, seen: Table, ramp) -> None:
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(rate.astype(np.float32), name="RATE"),
        fits.BinTableHDU(seen, name="SOURCES"),
        fits.BinTableHDU(ramp.cosmic_rays, name="COSMIC_RAYS"),
        fits.BinTableHDU(ramp.snowballs, name="SNOWBALLS"),
    ]
    hdus[1].header["BUNIT"] = "DN/s"
    fits.HDUList(hdus).writeto(path, overwrite=True)


def _write_associations(
    path: Path,
    visit: Visit,
    detectors: Sequence[Detector],
    filter_: Filter,
    subarray: str,
    table: Instrument,
    tso: bool,
    segments: int,
) -> dict[str, Path]:
    """Association files: one for all detectors, one a detector, one Stage 2 an exposure."""
    stage3, rule3, calibrated = ("tso3", "Asn_Lv3TSO", "calints") if tso else ("image3", "Asn_Lv3Image", "cal")
    stage2, rule2, rates = ("tso-image2", "Asn_Lv2ImageTSO", "rateints") if tso else ("image2", "Asn_Lv2Image", "rate")

    def member(name: str) -> dict:
        return {
            "expname": name, "exptype": "science", "exposerr": "null",
            "asn_candidate": f"[('o{visit.observation}', 'observation')]",
        }  # fmt: skip

    def write(name: str, kind: str, rule: str, product: str, members: list[dict]) -> Path:
        content = {
            "asn_type": kind, "asn_rule": rule, "version_id": None, "code_version": "1.12.5",
            "degraded_status": "No known degraded exposures in association.", "program": visit.program,
            "constraints": "No constraints", "asn_id": f"o{visit.observation}", "asn_pool": "none", "target": "t001",
            "products": [{"name": product, "members": members}],
        }  # fmt: skip
        (path / name).write_text(json.dumps(content, indent=4) + "\n")
        return path / name

    numbers = range(1, segments + 1) if segments > 1 else (None,)
    roots = {d.name: [visit.rootname(k + 1, d, n) for k in range(visit.dithers) for n in numbers] for d in detectors}
    stem = f"jw{visit.program}-o{visit.observation}"
    product = f"{stem}_t001_{table.name.lower()}_clear-{filter_.name.lower()}"
    if subarray != "FULL":
        product += f"-{subarray.lower()}"
    every = [member(f"{root}_{calibrated}.fits") for names in roots.values() for root in names]
    out = {stage3: write(f"{stem}_{stage3}_00001_asn.json", stage3, rule3, product, every)}
    for number, (name, names) in enumerate(roots.items(), start=2):
        members = [member(f"{root}_{calibrated}.fits") for root in names]
        file = f"{stem}_{stage3}_{number:05d}_asn.json"
        out[f"{stage3}_{name.lower()}"] = write(file, stage3, rule3, f"{product}-{name.lower()}", members)
    for number, root in enumerate((r for names in roots.values() for r in names), start=1):
        file = f"{stem}_image2_{number:05d}_asn.json"
        out[f"image2_{root}"] = write(file, stage2, rule2, root, [member(f"{root}_{rates}.fits")])
    return out
