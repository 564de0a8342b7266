"""Subtract the average of background exposures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jwstdask.core.block import ImageBlock, Window
from jwstdask.core.errors import InputError, StepError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, SidePath, Step
from jwstdask.io.layout import FitsLayout, open_layout
from jwstdask.io.product import ProductWriter, make_folder
from jwstdask.kernels.bkg_subtract import clipped_mean

_MODELLED = frozenset(("NIS_WFSS", "NRC_WFSS", "MIR_WFSS", "NIS_SOSS"))
# Agreement of the grating wheel positions of NIRSpec exposures.
_TILT_TOLERANCE = 1e-8
_ROWS = 64


@dataclass(frozen=True)
class Background:
    """A background exposure and where its corner is in the science frame [pixel]."""

    layout: FitsLayout
    y: int
    x: int
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class BackgroundStep(Step):
    """Subtract the average of background exposures."""

    alias = "bkg_subtract"
    class_name = "BackgroundStep"
    status = "bkg_subtract"
    reference_types = ("bkg", "wavelengthrange")
    equations = (
        "B: mean of the backgrounds' values within sigma standard deviations of their median, clipped anew until\n"
        "nothing changes or maxiters is reached; SCI - B; DQ |= DQ of all backgrounds; ERR is unchanged"
    )
    sources = "JWST pipeline documentation, bkg_subtract"

    bkg_list: tuple[str, ...] | None = par(None, "background exposures; those of an association have precedence")
    save_combined_background: bool = par(False, "save the average background")
    sigma: float = par(3.0, "clipping threshold", unit="standard deviation")
    maxiters: int | None = par(None, "clipping iterations; None for as many as it takes")
    soss_source_percentile: float = par(35.0, "flux percentile above which pixels belong to the source (SOSS)")
    soss_bkg_percentile: tuple[float, ...] | None = par(
        None, "range of percentiles used to scale the background (SOSS)", length=(2, 2)
    )
    wfss_mmag_extract: float | None = par(None, "faintest AB magnitude of the sources masked (WFSS)")
    wfss_mask: str | None = par(None, "file with a mask of the sources (WFSS)")
    wfss_maxiter: int = par(5, "most iterations of outlier rejection (WFSS)")
    wfss_rms_stop: float = par(0.0, "improvement of the rms at which the iterations stop (WFSS)", unit="percent")
    wfss_outlier_percent: float = par(1.0, "share of outliers rejected an iteration (WFSS)", unit="percent")

    average_path: str | None = None
    """Where the average background is saved; set when planning."""

    def with_side_products(self, path: SidePath) -> BackgroundStep:
        return replace(self, average_path=path("combinedbackground") if self.save_combined_background else None)

    def skip_reason(self, meta: Meta) -> str | None:
        if meta.get("meta.exposure.type") in _MODELLED:
            return None
        return None if any(self.bkg_list or ()) else "no background exposures"

    def references_for(self, meta: Meta) -> tuple[str, ...]:
        return self.reference_types if meta.get("meta.exposure.type") in _MODELLED else ()

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        # Only modes with a model of the background have references.
        if meta.get("meta.instrument.name") == "NIRSPEC":
            wanted = [meta.get(f"meta.instrument.gwa_{axis}tilt") for axis in "xy"]
            for path in filter(None, self.bkg_list or ()):
                header = open_layout(path).header()
                tilt = [header.get(f"GWA_{axis}TIL") for axis in "XY"]
                if None in tilt or None in wanted or not np.allclose(wanted, tilt, atol=_TILT_TOLERANCE, rtol=0):
                    return f"the grating wheel of {path} stood elsewhere"
        return None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> list[Background]:
        name = str(meta.get("meta.filename") or "exposure")
        if meta.get("meta.exposure.type") in _MODELLED:
            raise StepError(
                name,
                self.alias,
                f"{meta['meta.exposure.type']} is not supported",
                "Give --steps.bkg_subtract.skip=true.",
            )
        corner = [meta.get(f"meta.subarray.{axis}start") for axis in "yx"]
        if None in corner:
            raise StepError(name, self.alias, "SUBSTRT1 or SUBSTRT2 is missing")
        backgrounds = []
        for path in filter(None, self.bkg_list or ()):
            layout = open_layout(path)
            shape = layout.check_exposure().shape
            start = [layout.header().get(f"SUBSTRT{axis}") for axis in (2, 1)]
            if None in start:
                raise InputError(path, "SUBSTRT1 or SUBSTRT2 is missing", f"It is needed to place it on {name}.")
            backgrounds.append(Background(layout, start[0] - corner[0], start[1] - corner[1], shape))
        return backgrounds

    def apply(self, block: ImageBlock, prepared: list[Background], gathered: Any = None) -> None:
        mean, _, dq = self.average(block.window, block.sci.ndim, prepared)
        block.sci -= mean
        block.dq |= dq

    def finish(self, meta: Meta, prepared: list[Background], tally: Mapping[str, float]) -> dict[str, Any]:
        if self.average_path is not None and prepared:
            self._save(self.average_path, meta, prepared)
        return {}

    def _save(self, path: str, meta: Meta, backgrounds: list[Background]) -> None:
        """Save the average background, with no metadata, as in jwst."""
        shape = int(meta["meta.subarray.ysize"]), int(meta["meta.subarray.xsize"])
        arrays = {"sci": (shape, "float32"), "err": (shape, "float32"), "dq": (shape, "uint32")}
        make_folder(path)
        with ProductWriter(path, "ImageModel", {}, arrays) as product:
            for start in range(0, shape[0], _ROWS):
                rows = slice(start, min(start + _ROWS, shape[0]))
                window = Window.plain(rows.start, rows.stop, 0, shape[1])
                found = self.average(window, len(backgrounds[0].shape), backgrounds, errors=True)
                for name, array in zip(arrays, found, strict=True):
                    product.write(name, array, rows=rows)
            product.finish()

    def average(
        self, window: Window, ndim: int, backgrounds: list[Background], errors: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Average background of a window.

        Parameters
        ----------
        window
            Part of the science frame.
        ndim
            3 for an exposure with integrations: the integrations of each background are averaged first.
        backgrounds
            From :meth:`prepare`.
        errors
            Read the errors too.

        Returns
        -------
        mean, err
            float32 (y, x), zero where no background has a value; ``err`` is zero without ``errors``.
        dq
            uint32 (y, x), flags of all backgrounds together.
        """
        values = np.full((len(backgrounds), *window.shape), np.nan)
        variances = np.zeros_like(values)
        dq = np.zeros(window.shape, np.uint32)
        for plane, variance, background in zip(values, variances, backgrounds):
            if len(background.shape) != ndim:
                raise InputError(
                    background.layout.path,
                    f"the background has {len(background.shape)} dimensions and the exposure {ndim}",
                    "Give rate files for images and rateints files for integrations.",
                )
            y0, y1 = max(window.y0, background.y), min(window.y1, background.y + background.shape[-2])
            x0, x1 = max(window.x0, background.x), min(window.x1, background.x + background.shape[-1])
            if y0 >= y1 or x0 >= x1:
                continue
            there = slice(y0 - background.y, y1 - background.y), slice(x0 - background.x, x1 - background.x)
            here = slice(y0 - window.y0, y1 - window.y0), slice(x0 - window.x0, x1 - window.x0)
            sci = background.layout.read("sci", *there)
            flags = background.layout.read("dq", *there)
            if ndim == 3:
                # A pixel without any valid integration counts as zero, as in jwst.
                sci = clipped_mean(sci, sigma=self.sigma, maxiters=self.maxiters)[0]
                flags = np.bitwise_or.reduce(flags, axis=0)
            plane[here] = sci
            dq[here] |= flags
            if errors:
                squares = background.layout.read("err", *there) ** 2
                if ndim == 3:
                    squares = clipped_mean(squares, sigma=self.sigma, maxiters=self.maxiters)[0]
                variance[here] = squares
        mean, variance = clipped_mean(values, variances, self.sigma, self.maxiters)
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32), dq
