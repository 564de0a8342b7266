"""``ds.jwst``: what xarray objects of this package know of themselves. Read-only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from jwstdask.core import dq
from jwstdask.core.dims import WCS


class Meta(Mapping[str, Any]):
    """Metadata by dotted name, with or without the leading ``meta.``, or by attribute.

    Examples
    --------
    >>> meta = Meta({"meta.exposure.type": "NRC_IMAGE"})
    >>> meta["meta.exposure.type"], meta["exposure.type"], meta.exposure.type
    ('NRC_IMAGE', 'NRC_IMAGE', 'NRC_IMAGE')
    """

    def __init__(self, flat: Mapping[str, Any], prefix: str = "meta.") -> None:
        object.__setattr__(self, "_flat", flat)
        object.__setattr__(self, "_prefix", prefix)

    def __getitem__(self, name: str) -> Any:
        for full in (self._prefix + name, name):
            if full in self._flat and full.startswith(self._prefix):
                return self._flat[full]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        length = len(self._prefix)
        return (name[length:] for name in self._flat if isinstance(name, str) and name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        inner = f"{self._prefix}{name}."
        if any(isinstance(key, str) and key.startswith(inner) for key in self._flat):
            return Meta(self._flat, inner)
        raise AttributeError(f"there is no {self._prefix}{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("metadata are changed in ds.attrs, by their dotted names")

    def __dir__(self) -> list[str]:
        return sorted({name.split(".")[0] for name in self})

    def __repr__(self) -> str:
        return "\n".join(f"{self._prefix}{name} = {value!r}" for name, value in self.items())


@xr.register_dataset_accessor("jwst")
class JwstAccessor:
    """What a Dataset of an exposure knows of itself.

    Parameters
    ----------
    ds
        From `jwstdask.open_exposure`, ``xr.open_dataset(..., engine="jwst")`` or a pipeline.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    @property
    def meta(self) -> Meta:
        """Metadata: ``ds.jwst.meta.exposure.type`` is ``ds.attrs["meta.exposure.type"]``."""
        return Meta(self._ds.attrs)

    @property
    def wcs(self) -> Any:
        """The gwcs object; None where there is none."""
        return self._ds.coords[WCS].item() if WCS in self._ds.coords else None

    @property
    def stage(self) -> int:
        """How far the exposure is: 0 ramps, 1 slopes, 2 calibrated, 3 combined with others or aligned to them."""
        return stage_of(self._ds.attrs)

    def flags(self, which: str | None = None) -> xr.DataArray:
        """The data-quality array: ``dq``, or ``groupdq`` or ``pixeldq`` of a ramp.

        Raises
        ------
        KeyError
            If there is none, or a ramp has two and ``which`` does not say.
        """
        present = [name for name in ("dq", "groupdq", "pixeldq") if name in self._ds]
        if which is None and len(present) == 1:
            which = present[0]
        if which not in present:
            raise KeyError(f"say which flags: {', '.join(present) or 'there are none'}")
        return self._ds[which]

    def flagged(self, flags: str | int, which: str | None = None) -> xr.DataArray:
        """Where any of the flags is set.

        Parameters
        ----------
        flags
            Names as jwst writes them, such as ``"JUMP_DET"`` or ``"SATURATED+DO_NOT_USE"``, or their sum.
        which
            ``dq``, ``groupdq`` or ``pixeldq``. By default the array there is; of a ramp's two ``groupdq`` for flags
            that a group can have, else ``pixeldq``.

        Returns
        -------
        xarray.DataArray
            bool, lazy if the flags are.

        Raises
        ------
        ValueError
            If a name is not a flag.
        KeyError
            If there is no such array.
        """
        bits = dq.parse(flags)
        if which is None and {"groupdq", "pixeldq"} <= set(self._ds):
            which = "groupdq" if bits & ~_GROUP_BITS == 0 else "pixeldq"
        array = self.flags(which)
        found = (array & array.dtype.type(bits & np.iinfo(array.dtype).max)) != 0
        found.attrs = {}
        return found


def stage_of(meta: Mapping[str, Any]) -> int:
    """How far an exposure is, from its metadata by dotted name; see `JwstAccessor.stage`."""
    done = {
        name.removeprefix("meta.cal_step.")
        for name, status in meta.items()
        if isinstance(name, str) and name.startswith("meta.cal_step.") and status == "COMPLETE"
    }
    if done & _COMBINED or _LEVEL3.search(str(meta.get("meta.asn.table_name", ""))):
        return 3
    return 2 if done & _CALIBRATED else 1 if "ramp_fit" in done else 0


_GROUP_BITS = sum(dq.GROUP.values())
# Associations of the archive, by type: one exposure alone is not aligned to any other.
_LEVEL3 = re.compile(r"_[a-z-]+3_\d+_asn\.json$")
_COMBINED = {"tweakreg", "skymatch", "outlier_detection", "source_catalog", "assign_mtwcs"}
_CALIBRATED = {"assign_wcs", "flat_field", "photom", "resample"}
