"""Reference files: from a detector's arrays to files in the forms of CRDS."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import asdf
import numpy as np
from astropy import units
from astropy.io import fits
from astropy.modeling import models
from astropy.table import Table
from scipy.interpolate import RectBivariateSpline

from jwstdask.simulate import extraction, nirspec
from jwstdask.simulate.crds import STEP_CLASSES, USEAFTER, ReferenceMap, Rule
from jwstdask.simulate.detector import DetectorMaps, make_maps
from jwstdask.simulate.geometry import ARCSEC, Distortion
from jwstdask.simulate.instruments import Aperture, Detector, Filter, Instrument, ReadPattern
from jwstdask.simulate.irs2 import ROWS, interleaved_bias, science_rows, weights
from jwstdask.simulate.miri import FREQUENCIES as INTERFERENCE
from jwstdask.simulate.miri import RESET_GROUPS, SKIPPED, interference_cases, reset_anomaly, wave
from jwstdask.simulate.parameters import PARAMETERS
from jwstdask.simulate.psf import EncircledEnergy, intensity

READ_OUT_TYPES = "NRC_IMAGE|NRC_TSIMAGE|NRC_TACQ|NRC_TACONFIRM|NRC_FLAT|NRC_FOCUS|NRC_DARK|"
DATE = "2022-04-01T00:00:00"
PSF_RADIUS = 40
"""Radius of the simulated point sources [pixel]."""
SKY_ANNULUS = (12.0, 16.0)
"""Inner and outer radius of the sky annulus of aperture photometry [pixel]."""
EE_FRACTIONS = (0.30, 0.50, 0.60, 0.70, 0.80)


@dataclass(frozen=True)
class Request:
    """What references are wanted for.

    ``size`` is the subarray the references are delivered in; darks are made for every name in ``subarrays``. What
    depends on the way of reading is made for ``pattern`` and those like it.
    """

    folder: Path
    instrument: Instrument
    detectors: tuple[Detector, ...]
    subarrays: tuple[str, ...]
    small: bool
    filters: tuple[Filter, ...]
    dark_groups: int
    seed: int
    pattern: ReadPattern

    @property
    def size(self) -> str:
        """Subarray that most references are delivered for."""
        return self.subarrays[0] if self.small else "FULL"

    def rng(self, *key: object) -> np.random.Generator:
        """A generator that depends on the seed and a key only."""
        words = [self.seed, *np.frombuffer("/".join(map(str, key)).encode().ljust(4), np.uint8).tolist()]
        return np.random.default_rng(words)

    def file(self, kind: str, number: int, suffix: str = "fits") -> Path:
        """Path of a reference by CRDS's naming."""
        short = self.instrument.name.lower()
        return self.folder / f"jwst_{short}_{kind}_{number:04d}.{suffix}"


def _reference_header(
    request: Request, kind: str, model: str, detector: Detector | None, aperture: Aperture | None, subarray: str = ""
) -> fits.Header:
    header = fits.Header()
    header["DATE"] = (DATE + ".000", "UTC date file created")
    header["ORIGIN"] = ("SIMULATION", "Organization responsible for creating file")
    header["DATAMODL"] = (model, "Type of data model")
    header["TELESCOP"] = ("JWST", "Telescope used to acquire the data")
    header["REFTYPE"] = (kind.upper(), "Reference file type")
    header["PEDIGREE"] = ("GROUND", "The pedigree of the reference file")
    header["DESCRIP"] = f"Synthetic {kind} with known truth"
    header["AUTHOR"] = ("jwstdask.simulate", "Author of the reference file")
    header["USEAFTER"] = (USEAFTER.replace(" ", "T"), "Use after date of the reference file")
    header["INSTRUME"] = (request.instrument.name, "Instrument")
    if detector is not None:
        header["DETECTOR"] = (detector.name, "Name of detector")
        if detector.module:
            header["CHANNEL"] = (detector.channel, "Instrument channel")
            header["MODULE"] = (detector.module, "Instrument module")
        header.update(detector.keywords)
        header["FASTAXIS"] = (detector.fastaxis, "Fast readout axis direction")
        header["SLOWAXIS"] = (detector.slowaxis, "Slow readout axis direction")
    if aperture is not None:
        header["SUBARRAY"] = (subarray, "Subarray used")
        header["SUBSTRT1"] = (aperture.x_start, "Starting pixel in axis 1 direction")
        header["SUBSTRT2"] = (aperture.y_start, "Starting pixel in axis 2 direction")
        header["SUBSIZE1"] = (aperture.x_size, "Number of pixels in axis 1 direction")
        header["SUBSIZE2"] = (aperture.y_size, "Number of pixels in axis 2 direction")
    return header


def _image(name: str, data: np.ndarray, units_: str = "") -> fits.ImageHDU:
    hdu = fits.ImageHDU(np.ascontiguousarray(data), name=name)
    if units_:
        hdu.header["BUNIT"] = (units_, "physical units of the array values")
    return hdu


def _flags(flags: Mapping[str, np.ndarray], dtype: type = np.uint8) -> list[fits.hdu.base._BaseHDU]:
    """DQ image with bits of its own, numbered in order, and the DQ_DEF table that names them."""
    shape = next(iter(flags.values())).shape
    dq = np.zeros(shape, np.uint32)
    for bit, flagged in enumerate(flags.values()):
        dq |= np.where(flagged, np.uint32(1 << bit), np.uint32(0))
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("BIT", "J", array=np.arange(len(flags))),
            fits.Column("VALUE", "J", array=2 ** np.arange(len(flags))),
            fits.Column("NAME", "40A", array=list(flags)),
            fits.Column("DESCRIPTION", "80A", array=[name.replace("_", " ").capitalize() for name in flags]),
        ],
        name="DQ_DEF",
    )
    return [_image("DQ", dq.astype(dtype)), table]


def _save(path: Path, header: fits.Header, hdus: Sequence[fits.hdu.base._BaseHDU]) -> None:
    header["FILENAME"] = (path.name, "Name of the file")
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList([fits.PrimaryHDU(header=header), *hdus]).writeto(path, overwrite=True)


def _asdf_meta(request: Request, kind: str, **more: object) -> dict:
    meta: dict = {
        "author": "jwstdask.simulate", "date": DATE, "description": f"Synthetic {kind} with known truth",
        "instrument": {"name": request.instrument.name}, "origin": "SIMULATION", "pedigree": "GROUND", "reftype": kind,
        "telescope": "JWST", "useafter": USEAFTER.replace(" ", "T"),
    }  # fmt: skip
    meta["instrument"].update(more.pop("instrument", {}))  # type: ignore[arg-type]
    return {**meta, **more}


def _save_asdf(path: Path, tree: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    asdf.AsdfFile(tree).write_to(path, all_array_storage="inline")


# --- one maker a reference type -------------------------------------------------------------------------------


def with_holes(rng: np.random.Generator, image: np.ndarray, where: np.ndarray, share: float = 0.5) -> np.ndarray:
    """A copy with NaN in a share of the pixels of ``where`` (at least one of them)."""
    candidates = np.argwhere(where)
    chosen = candidates[rng.random(len(candidates)) < share] if len(candidates) > 1 else candidates
    if len(chosen) == 0:
        chosen = candidates[:1]
    image = image.copy()
    image[..., chosen[:, 0], chosen[:, 1]] = np.nan
    return image


def _detector_files(request: Request, number: int, detector: Detector, maps: DetectorMaps) -> dict[str, Path]:
    """References of one detector that cover its pixels."""
    aperture = request.instrument.aperture(detector, request.size)
    rng = request.rng("holes", detector.name)
    flags = maps.flags
    out: dict[str, Path] = {}

    def save(kind: str, model: str, hdus: Sequence[fits.hdu.base._BaseHDU], **keywords: object) -> None:
        header = _reference_header(request, kind, model, detector, aperture, request.size)
        header.update(keywords)
        out[kind] = request.file(kind, number)
        _save(out[kind], header, hdus)

    interleaved = request.pattern.interleaved
    if interleaved:
        save("mask", "MaskModel", _flags(_interleaved_mask(request, detector, flags["mask"]), np.uint32))
    else:
        save("mask", "MaskModel", _flags(flags["mask"], np.uint32))
    gain = with_holes(rng, maps.gain, flags["mask"]["OTHER_BAD_PIXEL"], 1.0)
    save("gain", "GainModel", [_image("SCI", gain, "ELECTRONS/DN")])
    noise = (np.sqrt(2) * maps.read_noise).astype(np.float32)
    save("readnoise", "ReadnoiseModel", [_image("SCI", noise, "DN")], READPATT="ANY")
    threshold = np.minimum(maps.superbias + 0.985 * maps.saturation, 65000).astype(np.float32)
    threshold = with_holes(rng, threshold, flags["saturation"]["NO_SAT_CHECK"])
    save("saturation", "SaturationModel", [_image("SCI", threshold, "DN"), *_flags(flags["saturation"])])
    bias = with_holes(rng, maps.superbias, flags["superbias"]["UNRELIABLE_BIAS"], 0.3)
    bias_flags = flags["superbias"]
    if interleaved:
        rows = science_rows(detector.fastaxis < 0)
        bias = interleaved_bias(bias, detector.fastaxis < 0, request.rng("interleaved", detector.name))
        bias_flags = {name: _spread(flag, rows) for name, flag in bias_flags.items()}
    if not request.instrument.mid_infrared:
        images = [_image("SCI", bias, "DN"), _image("ERR", np.full_like(bias, 0.4), "DN")]
        save("superbias", "SuperBiasModel", [*images, *_flags(bias_flags)], READPATT="ANY")
    coefficients = with_holes(rng, maps.linearity, flags["linearity"]["NO_LIN_CORR"] & ~maps.reference_pixels)
    save("linearity", "LinearityModel", [_image("COEFFS", coefficients), *_flags(flags["linearity"])])
    if request.instrument.name == "NIRCAM":
        area = Distortion(request.instrument, detector)
        rows, columns = np.mgrid[aperture.window]
        coarse = slice(None, None, 16)
        solid = area.area(columns[coarse, coarse], rows[coarse, coarse])
        spline = RectBivariateSpline(rows[coarse, 0], columns[0, coarse], solid, kx=2, ky=2)
        nominal = float(area.area(area.x_ref - 1, area.y_ref - 1))
        save("area", "PixelAreaModel", [_image("SCI", (spline(rows[:, 0], columns[0]) / nominal).astype(np.float32))],
             PIXAR_SR=nominal * ARCSEC**2, PIXAR_A2=nominal)  # fmt: skip
    kernel = np.array([[0.0003, 0.0055, 0.0003], [0.0055, 0, 0.0055], [0.0003, 0.0055, 0.0003]])
    kernel[1, 1] = 1 - kernel.sum()
    # the file holds the kernel that undoes the coupling: its inverse to first order
    inverse = -kernel
    inverse[1, 1] = 1 - inverse.sum() + inverse[1, 1]
    save("ipc", "IPCModel", [_image("SCI", inverse.astype(np.float32))])
    return out


def _spread(image: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """An image (2048, x) among the rows of an IRS2 frame, zero between."""
    frame = np.zeros((ROWS, image.shape[1]), image.dtype)
    frame[rows] = image
    return frame


def _interleaved_mask(request: Request, detector: Detector, flags: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Flags of all rows of an IRS2 frame: some reference samples are bad."""
    rows = science_rows(detector.fastaxis < 0)
    out = {name: _spread(flag, rows) for name, flag in flags.items()}
    between = np.ones(ROWS, bool)
    between[rows] = False
    out["REFERENCE_PIXEL"][between] = True
    # pairs of samples are those of one reference pixel
    samples = np.flatnonzero(between)
    first = 2 * request.rng("interleaved mask", detector.name).choice(samples.size // 2, 3, replace=False)
    out["BAD_REF_PIXEL"][samples[np.concatenate([first, first + 1])]] = True
    return out


def _dark(request: Request, number: int, detector: Detector, maps: DetectorMaps, subarray: str) -> Path:
    """Accumulated dark signal of single frames, linear [DN]; of the first and of later integrations for MIRI."""
    instrument = request.instrument
    aperture = instrument.aperture(detector, subarray)
    cut = (lambda array: array) if request.small else aperture.cut
    rate, gain = cut(maps.dark_rate), cut(maps.gain)
    flags = {name: cut(flag) for name, flag in maps.flags["dark"].items()}
    frame = instrument.frame_time(aperture, request.pattern)
    rng = request.rng("dark", detector.name, subarray)
    # Very hot pixels of a real dark stop at saturation; the linear signal of a full well is its upper end.
    top = 1.06 * cut(maps.saturation)
    planes = 2 if instrument.mid_infrared else 1
    cube = np.empty((planes, request.dark_groups, aperture.y_size, aperture.x_size), ">f4")
    for plane in range(planes):
        for group in range(request.dark_groups):
            cube[plane, group] = np.minimum(rate / gain * (frame * (group + 1)), top)
            cube[plane, group] += 0.15 * rng.standard_normal(cube.shape[2:], dtype=np.float32)
    model = "DarkMIRIModel" if instrument.mid_infrared else "DarkModel"
    header = _reference_header(request, "dark", model, detector, aperture, subarray)
    exp_type = {"MIRI": "MIR_DARKALL", "NIRSPEC": "NRS_DARK", "NIRISS": "NIS_DARK", "FGS": "FGS_DARK"}
    header.update(
        NGROUPS=request.dark_groups, NFRAMES=1, GROUPGAP=0, NINTS=planes,
        READPATT="RAPID" if instrument.name == "NIRCAM" else request.pattern.name,
        EXP_TYPE=exp_type.get(instrument.name, "NRC_DARK"), TFRAME=frame, TGROUP=frame,
        NOUTPUTS=instrument.outputs(aperture),
    )  # fmt: skip
    path = request.file("dark", number)
    dq = _flags(flags)
    if instrument.mid_infrared:
        dq[0] = _image("DQ", np.broadcast_to(dq[0].data, (planes, 1, *aperture.shape)))
        _save(path, header, [_image("SCI", cube, "DN"), *dq])
    else:
        _save(path, header, [_image("SCI", cube[0], "DN"), *dq])
    return path


def _reset(request: Request, number: int, detector: Detector, maps: DetectorMaps, subarray: str) -> Path:
    """What resets leave, of the first and of later integrations [DN]."""
    aperture = request.instrument.aperture(detector, subarray)
    strength = maps.reset if request.small else aperture.cut(maps.reset)
    flags = {name: flag if request.small else aperture.cut(flag) for name, flag in maps.flags["reset"].items()}
    cube = np.stack([[reset_anomaly(strength, i, group) for group in range(RESET_GROUPS)] for i in (0, 1)])
    header = _reference_header(request, "reset", "ResetModel", detector, aperture, subarray)
    header.update(NINTS=2, NGROUPS=RESET_GROUPS, READPATT=request.pattern.name)
    path = request.file("reset", number)
    _save(path, header, [_image("SCI", cube.astype(">f4"), "DN"), *_flags(flags)])
    return path


def _rscd(request: Request, number: int, detector: Detector) -> Path:
    """Groups to leave out after a reset."""
    names = ["FULL", *sorted({name for _, name in request.instrument.subarrays})]
    rows = [
        (name, pattern.name, *SKIPPED["SLOW" if pattern.samples > 1 else "FAST"])
        for name in names
        for pattern in request.instrument.read_patterns.values()
    ]
    columns = zip(("subarray", "readpatt", "group_skip1", "group_skip"), ("17A", "12A", "J", "J"), zip(*rows))
    table = fits.BinTableHDU.from_columns(
        [fits.Column(name, form, array=list(values)) for name, form, values in columns], name="RSCD_GROUP_SKIP"
    )
    path = request.file("rscd", number)
    _save(path, _reference_header(request, "rscd", "RSCDModel", detector, None), [table])
    return path


def _emicorr(request: Request, number: int) -> Path:
    """Waves of the interference and the clocks of all subarrays."""
    waves = {name: {"frequency": frequency, "phase_amplitudes": wave(name)} for name, frequency in INTERFERENCE.items()}
    path = request.file("emicorr", number, "asdf")
    meta = _asdf_meta(request, "emicorr", model_type="EmiModel")
    _save_asdf(path, {"meta": meta, "frequencies": waves, "subarray_cases": interference_cases()})
    return path


def _refpix(request: Request, number: int, detector: Detector) -> Path:
    """Weights of the reference samples of IRS2 readouts, and a list of bad ones."""
    found = weights()
    table = fits.BinTableHDU(np.rec.fromarrays(list(found.values()), names=list(found)), name="IRS2")
    rng = request.rng("refpix", detector.name)
    bad = np.zeros(8, np.uint32)
    bad[rng.choice(8, 3, replace=False)] = 1 << rng.integers(0, 32, 3).astype(np.uint32)
    listed = fits.BinTableHDU.from_columns(
        [
            fits.Column("OUTPUT", "I", bzero=2**15, array=np.repeat(np.arange(1, 5), 2).astype(np.uint16)),
            fits.Column("ODD_EVEN", "I", bzero=2**15, array=np.tile([1, 2], 4).astype(np.uint16)),
            fits.Column("MASK", "J", bzero=2**31, array=bad),
        ],
        name="DQ",
    )
    header = _reference_header(request, "refpix", "IRS2Model", detector, None)
    header["READPATT"] = request.pattern.name
    path = request.file("refpix", number)
    _save(path, header, [table, listed])
    return path


def picture_frame(side: int = 2048) -> np.ndarray:
    """The glow of the frame around NIRSpec's detectors, about 1, float32 (y, x)."""
    edge = np.minimum(np.arange(side), np.arange(side)[::-1])
    return (1 + np.exp(-np.minimum.outer(edge, edge) / 60)).astype(np.float32)


def _pictureframe(request: Request, number: int, detector: Detector) -> Path:
    header = _reference_header(request, "pictureframe", "PictureFrameModel", detector, None)
    path = request.file("pictureframe", number)
    image = picture_frame()
    _save(path, header, [_image("SCI", image), _image("DQ", np.zeros(image.shape, np.uint32))])
    return path


def _flat(request: Request, number: int, detector: Detector, filter_: Filter, maps: DetectorMaps) -> Path:
    """Relative response; its large-scale part depends on the filter."""
    aperture = request.instrument.aperture(detector, request.size)
    rng = request.rng("flat", detector.name, filter_.name)
    flat, flags = maps.flat, maps.flags["flat"]
    error = np.full(flat.shape, 0.001, np.float32)
    header = _reference_header(request, "flat", "FlatModel", detector, aperture, request.size)
    header.update(FILTER=filter_.name, PUPIL="CLEAR", EXP_TYPE="NRC_FLAT")
    path = request.file("flat", number)
    holes = with_holes(rng, flat, flags["NO_FLAT_FIELD"] & ~maps.reference_pixels)
    _save(path, header, [_image("SCI", holes), _image("ERR", error), *_flags(flags)])
    return path


def _photom(request: Request, number: int, detector: Detector) -> Path:
    rows = [f for f in request.instrument.filters.values() if f.channel == detector.channel]
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("filter", "12A", array=[f.name for f in rows]),
            fits.Column("pupil", "12A", array=["CLEAR"] * len(rows)),
            fits.Column("photmjsr", "E", array=[f.photmjsr for f in rows], unit="MJy/sr/(DN/s)"),
            fits.Column("uncertainty", "E", array=[0.01 * f.photmjsr for f in rows], unit="MJy/sr/(DN/s)"),
        ],
        name="PHOTOM",
    )
    header = _reference_header(request, "photom", "NrcImgPhotomModel", detector, None)
    distortion = Distortion(request.instrument, detector)
    nominal = float(distortion.area(distortion.x_ref - 1, distortion.y_ref - 1))
    header.update(PIXAR_SR=nominal * ARCSEC**2, PIXAR_A2=nominal)
    header.update(EXP_TYPE="NRC_IMAGE", P_EXP_TY="NRC_IMAGE|NRC_TSIMAGE|")
    path = request.file("photom", number)
    _save(path, header, [table])
    return path


def distortion_model(distortion: Distortion, samples: int = 40):
    """The transform of a distortion reference: 0-indexed pixel to (V2, V3) [arcsec], with its inverse.

    The inverse is a polynomial of the same degree, fitted in the ideal frame over the detector and a margin.
    """
    degree = distortion.cx.shape[0] - 1

    def polynomial(coefficients: np.ndarray) -> models.Polynomial2D:
        names = {f"c{i}_{j}": coefficients[i, j] for i in range(degree + 1) for j in range(degree + 1 - i)}
        return models.Polynomial2D(degree, **names)

    half = distortion.x_ref - 0.5
    axis = np.linspace(-half - 60, half + 60, samples)
    u, v = (a.ravel() for a in np.meshgrid(axis, axis))
    x = np.polynomial.polynomial.polyval2d(u, v, distortion.cx)
    y = np.polynomial.polynomial.polyval2d(u, v, distortion.cy)
    terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    scale = np.abs(x).max()
    design = np.stack([(x / scale) ** i * (y / scale) ** j for i, j in terms], axis=1)
    back = []
    for target in (u, v):
        solution = np.linalg.lstsq(design, target, rcond=None)[0]
        table = np.zeros_like(distortion.cx)
        for (i, j), value in zip(terms, solution):
            table[i, j] = value / scale ** (i + j)
        back.append(polynomial(table))
    r = distortion.rotation
    turn, unturn = (
        [models.Polynomial2D(1, c0_0=0.0, c1_0=m[k, 0], c0_1=m[k, 1]) for k in (0, 1)] for m in (r, np.linalg.inv(r))
    )
    split = lambda: models.Mapping((0, 1, 0, 1))  # noqa: E731
    shift = lambda a, b: models.Shift(a) & models.Shift(b)  # noqa: E731
    x_ref, y_ref = distortion.x_ref, distortion.y_ref
    forward = (
        shift(1.0, 1.0) | shift(-x_ref, -y_ref) | split() | polynomial(distortion.cx) & polynomial(distortion.cy)
        | split() | turn[0] & turn[1] | shift(distortion.v2_ref, distortion.v3_ref)
    )  # fmt: skip
    forward.inverse = (
        shift(-distortion.v2_ref, -distortion.v3_ref) | split() | unturn[0] & unturn[1] | split() | back[0] & back[1]
        | shift(x_ref, y_ref) | shift(-1.0, -1.0)
    )  # fmt: skip
    return forward


def _distortion(request: Request, number: int, detector: Detector) -> Path:
    tree = {
        "meta": _asdf_meta(
            request,
            "distortion",
            model_type="DistortionModel",
            input_units=units.pixel,
            output_units=units.arcsec,
            title="NIRCam Distortion",
            exposure={"type": "NRC_IMAGE", "p_exptype": READ_OUT_TYPES},
            instrument={"detector": detector.name, "channel": detector.channel, "module": detector.module},
            subarray={"name": "FULL"},
        ),
        "model": distortion_model(Distortion(request.instrument, detector)),
    }
    path = request.file("distortion", number, "asdf")
    _save_asdf(path, tree)
    return path


def _filteroffset(request: Request, number: int, channel: str, module: str) -> Path:
    rows = [
        {"filter": f.name, "pupil": "CLEAR", "column_offset": f.offset[0], "row_offset": f.offset[1]}
        for f in request.instrument.filters.values()
        if f.channel == channel
    ]
    meta = _asdf_meta(
        request, "filteroffset", model_type="FilteroffsetModel", instrument={"channel": channel, "module": module}
    )
    path = request.file("filteroffset", number, "asdf")
    _save_asdf(path, {"meta": meta, "filters": rows})
    return path


def pixel_scale(instrument: Instrument, detector: Detector) -> float:
    """Side of the central pixel [arcsec]."""
    distortion = Distortion(instrument, detector)
    return float(np.sqrt(distortion.area(distortion.x_ref - 1, distortion.y_ref - 1)))


def _apcorr(request: Request, number: int) -> Path:
    rows = []
    for filter_ in request.filters:
        detector = next((d for d in request.detectors if d.channel == filter_.channel), None)
        if detector is None:
            continue
        image = intensity(filter_.wavelength, filter_.width, pixel_scale(request.instrument, detector), PSF_RADIUS)
        energy = EncircledEnergy(image)
        for share in EE_FRACTIONS:
            radius = energy.radius(share)
            rows.append((filter_.name, "CLEAR", share, radius, energy.correction(radius, *SKY_ANNULUS), *SKY_ANNULUS))
    formats = ("12A", "15A", "E", "E", "E", "E", "E")
    names = ("filter", "pupil", "eefraction", "radius", "apcorr", "skyin", "skyout")
    columns = [fits.Column(n, f, array=list(values)) for n, f, values in zip(names, formats, zip(*rows))]
    header = _reference_header(request, "apcorr", "NrcImgApcorrModel", None, None)
    header.update(EXP_TYPE="NRC_IMAGE", P_EXP_TY="NRC_IMAGE|NRC_TSIMAGE|")
    path = request.file("apcorr", number)
    _save(path, header, [fits.BinTableHDU.from_columns(columns, name="APCORR")])
    return path


def _abvegaoffset(request: Request, number: int) -> Path:
    rows = list(request.instrument.filters.values())
    table = Table(
        {"filter": [f.name for f in rows], "pupil": ["CLEAR"] * len(rows), "abvega_offset": [f.ab_vega for f in rows]}
    )
    path = request.file("abvegaoffset", number, "asdf")
    meta = _asdf_meta(request, "abvegaoffset", model_type="ABVegaOffsetModel")
    _save_asdf(path, {"meta": meta, "abvega_offset": table})
    return path


def _parameters(request: Request) -> list[ReferenceMap]:
    """Parameter references: see :mod:`jwstdask.simulate.parameters`."""
    maps = []
    classes = {name.lower(): name for name in STEP_CLASSES}
    for reftype, (keys, variants) in PARAMETERS[request.instrument.name].items():
        rules = []
        for number, variant in enumerate(variants, start=1):
            name = classes[reftype.removeprefix("pars-")]
            package = "jwst.pipeline" if name.endswith("Pipeline") else "jwst.step"
            tree: dict = {
                "class": f"{package}.{name}", "name": variant.get("name", name),
                "meta": _asdf_meta(request, reftype), "parameters": dict(variant["parameters"]),
            }  # fmt: skip
            if "steps" in variant:
                tree["steps"] = [
                    {"class": f"jwst.step.{cls}", "name": alias, "parameters": dict(pars)}
                    for alias, (cls, pars) in variant["steps"].items()
                ]
            path = request.file(reftype, number, "asdf")
            _save_asdf(path, tree)
            rules += [Rule(match, path.name) for match in variant["match"]]
        maps.append(ReferenceMap(reftype, keys, tuple(rules)))
    return maps


def _optics(request: Request) -> dict[str, Path]:
    """What the spectroscopic WCS of NIRSpec is made of, by reference type."""
    meta = _asdf_meta(request, "", date=DATE)
    gratings = sorted({str((filter_.keywords or {})["GRATING"]) for filter_ in request.filters})
    return nirspec.write_references(request.folder, gratings, meta)


def _apertures(request: Request, exposure_type: str) -> Path:
    """Where the spectrum of a time series is summed."""
    path = request.file("extract1d", 1, "json")
    about = {
        "REFTYPE": "EXTRACT1D", "INSTRUME": request.instrument.name, "TELESCOP": "JWST", "EXP_TYPE": exposure_type,
        "PEDIGREE": "GROUND", "DESCRIP": "Synthetic extract1d with known truth", "AUTHOR": "jwstdask.simulate",
        "USEAFTER": USEAFTER.replace(" ", "T"), "apertures": extraction.APERTURES[exposure_type],
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about, indent=1) + "\n")
    return path


def _slit_correction(request: Request) -> Path:
    header = _reference_header(request, "apcorr", "NrsFsApcorrModel", None, None)
    header.update(EXP_TYPE="NRS_BRIGHTOBJ", P_EXP_TY="NRS_BRIGHTOBJ|")
    keywords = [dict(filter_.keywords or {}) for filter_ in request.filters]
    path = request.file("apcorr", 1)
    _save(path, header, [extraction.slit_correction([(str(k["FILTER"]), str(k["GRATING"])) for k in keywords])])
    return path


def _grism(request: Request) -> dict[str, Path]:
    """What spectra of NIRCam's long wave grism are found and summed with, by reference type."""
    paths = {"extract1d": _apertures(request, "NRC_TSGRISM")}
    models = {"specwcs": "NIRCAMGrismModel", "wavelengthrange": "WavelengthrangeModel"}
    for kind, tree in extraction.grism().items():
        meta = _asdf_meta(
            request, kind, model_type=models[kind], exposure={"type": "NRC_TSGRISM", "p_exptype": "NRC_TSGRISM|"},
            instrument={"module": "A"},
        )  # fmt: skip
        paths[kind] = request.file(kind, 1, "asdf")
        _save_asdf(paths[kind], {"meta": meta, **tree})
    return paths


_DETECTOR, _SUBARRAY = "META.INSTRUMENT.DETECTOR", "META.SUBARRAY.NAME"
_READPATT, _EXP_TYPE = "META.EXPOSURE.READPATT", "META.EXPOSURE.TYPE"
_CHANNEL, _BAND = "META.INSTRUMENT.CHANNEL", "META.INSTRUMENT.BAND"
_FILTER, _PUPIL = "META.INSTRUMENT.FILTER", "META.INSTRUMENT.PUPIL"
_PLACE = tuple(f"META.SUBARRAY.{name}" for name in ("XSTART", "YSTART", "XSIZE", "YSIZE"))

_KEYS: Mapping[str, tuple[str, ...]] = {
    "mask": (_DETECTOR, _SUBARRAY), "gain": (_DETECTOR, _SUBARRAY), "linearity": (_DETECTOR, _SUBARRAY),
    "saturation": (_DETECTOR,), "ipc": (_DETECTOR,), "readnoise": (_DETECTOR, _READPATT, _SUBARRAY),
    "superbias": (_DETECTOR, _READPATT, _SUBARRAY), "dark": (_DETECTOR, _READPATT, _SUBARRAY),
    "reset": (_DETECTOR, _SUBARRAY, _READPATT), "rscd": (_DETECTOR,), "emicorr": (_DETECTOR,),
    "refpix": (_DETECTOR, _READPATT), "pictureframe": (_DETECTOR,),
    "area": (_DETECTOR, _FILTER, _PUPIL, _EXP_TYPE), "photom": (_DETECTOR, _EXP_TYPE),
    "distortion": (_EXP_TYPE, _DETECTOR, _CHANNEL, _PUPIL, _FILTER), "flat": (_DETECTOR, _FILTER, _PUPIL),
    **dict.fromkeys((*nirspec.MAKERS, "msaoper"), (_EXP_TYPE,)), "disperser": ("META.INSTRUMENT.GRATING",),
    "extract1d": (_EXP_TYPE,), "specwcs": (_EXP_TYPE,), "filteroffset": (_CHANNEL, "META.INSTRUMENT.MODULE"),
    "apcorr": (_EXP_TYPE,), "abvegaoffset": (),
}  # fmt: skip
"""Keys of the reference maps."""

_OWN_KEYS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("NIRCAM", "dark"): (_EXP_TYPE, _DETECTOR, _SUBARRAY),
    ("MIRI", "linearity"): (_DETECTOR, _SUBARRAY, _BAND, _FILTER),
    ("MIRI", "readnoise"): (_DETECTOR, _SUBARRAY, _READPATT),
    ("NIRSPEC", "mask"): (_DETECTOR, _SUBARRAY, _READPATT),
    ("NIRSPEC", "saturation"): (_DETECTOR, _SUBARRAY),
    ("NIRSPEC", "dark"): (_DETECTOR, _READPATT, _SUBARRAY, *_PLACE),
    ("NIRSPEC", "superbias"): (_DETECTOR, _READPATT, _SUBARRAY, *_PLACE),
    ("FGS", "mask"): (_DETECTOR, _SUBARRAY, _EXP_TYPE),
}
"""Those of an instrument that differ."""


def _keys(instrument: Instrument, kind: str) -> tuple[str, ...]:
    return _OWN_KEYS.get((instrument.name, kind), _KEYS[kind])


def _match(request: Request, kind: str, detector: Detector, subarray: str) -> tuple[str, ...]:
    """Values of the keys of a reference's map that select it; ``subarray`` for what each subarray has its own of."""
    size = subarray or (request.size if request.small else "GENERIC")
    imaging = "NRC_CORON|NRC_FLAT|NRC_FOCUS|NRC_IMAGE|NRC_TACONFIRM|NRC_TACQ|NRC_TSIMAGE"
    patterns = request.instrument.read_patterns.values()
    alike = [
        p.name for p in patterns if (p.samples, p.interleaved) == (request.pattern.samples, request.pattern.interleaved)
    ]
    by_pattern = kind in ("dark", "reset", "refpix") or (
        request.instrument.name == "NIRSPEC" and kind in ("mask", "superbias")
    )
    values = {
        _DETECTOR: detector.name, _SUBARRAY: size, _CHANNEL: detector.channel,
        _READPATT: "|".join(alike) if by_pattern else "ANY",
        _EXP_TYPE: imaging if kind in ("area", "photom", "distortion") else "N/A",
        _BAND: "N/A", _PUPIL: "ANY", _FILTER: "ANY" if request.instrument.name == "NIRCAM" else "N/A",
    }  # fmt: skip
    place = ("N/A",) * 4
    if size != "GENERIC":
        aperture = request.instrument.aperture(detector, size)
        place = tuple(str(n) for n in (aperture.x_start, aperture.y_start, aperture.x_size, aperture.y_size))
    values.update(zip(_PLACE, place))
    return tuple(values[key] for key in _keys(request.instrument, kind))


def make_references(
    request: Request, progress: Callable[[str], None]
) -> tuple[list[ReferenceMap], dict[str, dict[str, str]]]:
    """Write all references of a request.

    Returns
    -------
    maps
        The reference maps that select them.
    files
        For every detector the names of its files by kind (``"dark:SUB320"``, ``"flat:F200W"``).
    """
    rules: dict[str, list[Rule]] = {}
    files: dict[str, dict[str, str]] = {}
    imaging = request.instrument.name == "NIRCAM"
    darks = flats = 0
    for number, detector in enumerate(request.detectors, start=1):
        progress(f"references of {detector.name}")
        aperture = request.instrument.aperture(detector, request.size)
        maps = make_maps(request.instrument, detector, aperture, request.rng("maps", detector.name))
        paths = _detector_files(request, number, detector, maps)
        if imaging:
            paths["photom"] = _photom(request, number, detector)
            paths["distortion"] = _distortion(request, number, detector)
        if request.instrument.mid_infrared:
            paths["rscd"] = _rscd(request, number, detector)
            paths["emicorr"] = _emicorr(request, number)
        if request.pattern.interleaved:
            paths["refpix"] = _refpix(request, number, detector)
        if request.instrument.name == "NIRSPEC" and request.size == "FULL":
            paths["pictureframe"] = _pictureframe(request, number, detector)
        for kind, path in paths.items():
            rules.setdefault(kind, []).append(Rule(_match(request, kind, detector, ""), path.name))
        files[detector.name] = {kind: path.name for kind, path in paths.items()}
        for name in request.subarrays:
            darks += 1
            made = {"dark": _dark(request, darks, detector, maps, name)}
            if maps.reset is not None:
                made["reset"] = _reset(request, darks, detector, maps, name)
            for kind, path in made.items():
                rules.setdefault(kind, []).append(Rule(_match(request, kind, detector, name), path.name))
                files[detector.name][f"{kind}:{name}"] = path.name
        for filter_ in (f for f in request.filters if imaging and f.channel == detector.channel):
            flats += 1
            path = _flat(request, flats, detector, filter_, maps)
            rules.setdefault("flat", []).append(Rule((detector.name, filter_.name, "CLEAR"), path.name))
            files[detector.name][f"flat:{filter_.name}"] = path.name
    if imaging:
        progress("filter tables, aperture corrections, parameters")
        groups = sorted({(d.channel, d.module) for d in request.detectors})
        for number, group in enumerate(groups, start=1):
            path = _filteroffset(request, number, *group)
            rules.setdefault("filteroffset", []).append(Rule(group, path.name))
        rules["apcorr"] = [Rule(("NRC_IMAGE|NRC_TSIMAGE",), _apcorr(request, 1).name)]
        rules["abvegaoffset"] = [Rule((), _abvegaoffset(request, 1).name)]
    if imaging and any(name.startswith("SUBGRISM") for name in request.subarrays):
        for kind, path in _grism(request).items():
            rules[kind] = [Rule(("NRC_TSGRISM",), path.name)]
        rules["apcorr"].append(Rule(("NRC_TSGRISM",), "N/A"))
        # Distortion and flat are those of images.
        rules["distortion"] += [Rule(("NRC_TSGRISM", *rule.match[1:]), rule.file) for rule in rules["distortion"]]
        rules["flat"] += [Rule((*rule.match[:2], "GRISMR"), rule.file) for rule in rules["flat"]]
    if request.instrument.name == "NIRSPEC":
        for kind, path in _optics(request).items():
            kind, _, grating = kind.partition(":")
            rules.setdefault(kind, []).append(Rule((grating or nirspec.EXPOSURES,), path.name))
        rules["extract1d"] = [Rule(("NRS_BRIGHTOBJ",), _apertures(request, "NRS_BRIGHTOBJ").name)]
        rules["apcorr"] = [Rule(("NRS_BRIGHTOBJ",), _slit_correction(request).name)]
    generic = {"mask", "gain", "linearity", "readnoise", "superbias", "dark", "saturation", "reset"}
    maps_ = [
        ReferenceMap(
            kind,
            _keys(request.instrument, kind),
            tuple(lines),
            generic=kind in generic and _SUBARRAY in _keys(request.instrument, kind) and not request.small,
        )
        for kind, lines in sorted(rules.items())
    ]
    return [*maps_, *_parameters(request)], files
