"""Where things are: detector pixels, telescope (V2, V3) coordinates, sky.

Sources: the SIAF description of the science, ideal and telescope frames (JWST-STScI-001550) and the rotation of the
telescope frame to the sky given there, M = Rz(ra) Ry(-dec) Rx(-roll) Ry(v3) Rz(-v2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from jwstdask.simulate.instruments import Aperture, Detector, Instrument

ARCSEC = np.pi / (180.0 * 3600.0)
"""Radians per arcsecond."""


def unit_vector(longitude: ArrayLike, latitude: ArrayLike) -> np.ndarray:
    """Unit vectors (..., 3) of spherical coordinates [rad]."""
    longitude, latitude = np.asarray(longitude, float), np.asarray(latitude, float)
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=-1
    )


def _rotation(axis: int, angle: float) -> np.ndarray:
    """Right-handed rotation of a vector about an axis by an angle [rad]."""
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


@dataclass(frozen=True)
class Attitude:
    """Orientation of the telescope: a point of the (V2, V3) frame [arcsec], its place on the sky and the roll [deg]."""

    ra: float
    dec: float
    roll: float
    v2: float
    v3: float

    @property
    def matrix(self) -> np.ndarray:
        """Rotation of telescope unit vectors to equatorial ones."""
        return (
            _rotation(2, np.radians(self.ra))
            @ _rotation(1, -np.radians(self.dec))
            @ _rotation(0, -np.radians(self.roll))
            @ _rotation(1, self.v3 * ARCSEC)
            @ _rotation(2, -self.v2 * ARCSEC)
        )

    def to_sky(self, v2: ArrayLike, v3: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Right ascension and declination [deg] of telescope coordinates [arcsec]."""
        vectors = unit_vector(np.asarray(v2) * ARCSEC, np.asarray(v3) * ARCSEC) @ self.matrix.T
        return np.degrees(np.arctan2(vectors[..., 1], vectors[..., 0])) % 360.0, np.degrees(np.arcsin(vectors[..., 2]))

    def from_sky(self, ra: ArrayLike, dec: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Telescope coordinates [arcsec] of right ascension and declination [deg]."""
        vectors = unit_vector(np.radians(ra), np.radians(dec)) @ self.matrix
        return np.arctan2(vectors[..., 1], vectors[..., 0]) / ARCSEC, np.arcsin(vectors[..., 2]) / ARCSEC

    def position_angle(self, v2: float, v3: float) -> float:
        """Angle of the direction of increasing V3, from north over east, at a point of the telescope frame [deg]."""
        lon, lat = v2 * ARCSEC, v3 * ARCSEC
        towards_v3 = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
        direction = self.matrix @ towards_v3
        ra, dec = np.radians(self.to_sky(v2, v3))
        east = np.array([-np.sin(ra), np.cos(ra), 0.0])
        north = np.array([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
        return float(np.degrees(np.arctan2(direction @ east, direction @ north)) % 360.0)

    def moved_to(self, v2: float, v3: float) -> Attitude:
        """The same orientation, named by another point of the telescope frame."""
        ra, dec = self.to_sky(v2, v3)
        return Attitude(float(ra), float(dec), self.position_angle(v2, v3), v2, v3)


def offset_on_sky(ra: float, dec: float, east: float, north: float) -> tuple[float, float]:
    """Sky position [deg] at a tangent-plane offset [arcsec] from another."""
    a, d = np.radians(ra), np.radians(dec)
    centre = unit_vector(a, d)
    e = np.array([-np.sin(a), np.cos(a), 0.0])
    n = np.array([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)])
    vector = centre + east * ARCSEC * e + north * ARCSEC * n
    vector /= np.linalg.norm(vector)
    return float(np.degrees(np.arctan2(vector[1], vector[0])) % 360.0), float(np.degrees(np.arcsin(vector[2])))


class Distortion:
    """Pixels of a detector's full science frame to telescope coordinates and back.

    Parameters
    ----------
    instrument, detector
        Which detector.
    offset
        Column and row offset of the filter, added to a pixel before the distortion.
    """

    def __init__(self, instrument: Instrument, detector: Detector, offset: tuple[float, float] = (0.0, 0.0)) -> None:
        row = instrument.distortion(detector)
        poly = row["sci_to_ideal"]
        self.x_ref, self.y_ref = row["x_sci_ref"], row["y_sci_ref"]
        self.v2_ref, self.v3_ref = row["v2_ref"], row["v3_ref"]
        self.angle, self.parity = row["v3_idl_yangle"], row["vidl_parity"]
        self.offset = offset
        degree = max(poly["i"])
        self.cx, self.cy = np.zeros((degree + 1, degree + 1)), np.zeros((degree + 1, degree + 1))
        for i, j, x, y in zip(poly["i"], poly["j"], poly["x"], poly["y"]):
            self.cx[i, j], self.cy[i, j] = x, y
        a = np.radians(self.angle)
        self.rotation = np.array([[self.parity * np.cos(a), np.sin(a)], [-self.parity * np.sin(a), np.cos(a)]])

    def to_v2v3(self, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Telescope coordinates [arcsec] of 0-indexed pixels of the full frame."""
        u = np.asarray(x, float) + self.offset[0] + 1.0 - self.x_ref
        v = np.asarray(y, float) + self.offset[1] + 1.0 - self.y_ref
        ideal_x = np.polynomial.polynomial.polyval2d(u, v, self.cx)
        ideal_y = np.polynomial.polynomial.polyval2d(u, v, self.cy)
        r = self.rotation
        return r[0, 0] * ideal_x + r[0, 1] * ideal_y + self.v2_ref, r[1, 0] * ideal_x + r[1, 1] * ideal_y + self.v3_ref

    def jacobian(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """Derivatives (..., 2, 2) of (V2, V3) by (x, y) [arcsec/pixel], central differences over one pixel."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        right, left = self.to_v2v3(x + 0.5, y), self.to_v2v3(x - 0.5, y)
        up, down = self.to_v2v3(x, y + 0.5), self.to_v2v3(x, y - 0.5)
        return np.stack(
            [
                np.stack([right[0] - left[0], up[0] - down[0]], axis=-1),
                np.stack([right[1] - left[1], up[1] - down[1]], axis=-1),
            ],
            axis=-2,
        )

    def area(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """Solid angle of pixels [arcsec^2]."""
        return np.abs(np.linalg.det(self.jacobian(x, y)))

    def from_v2v3(self, v2: ArrayLike, v3: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """0-indexed pixels of the full frame of telescope coordinates [arcsec], by Newton's method (to 1e-9 pixel)."""
        v2, v3 = np.asarray(v2, float), np.asarray(v3, float)
        inverse = np.linalg.inv(self.jacobian(self.x_ref - 1.0, self.y_ref - 1.0))
        x = self.x_ref - 1.0 + inverse[0, 0] * (v2 - self.v2_ref) + inverse[0, 1] * (v3 - self.v3_ref)
        y = self.y_ref - 1.0 + inverse[1, 0] * (v2 - self.v2_ref) + inverse[1, 1] * (v3 - self.v3_ref)
        for _ in range(20):
            # Far outside the detector the polynomial is meaningless: keep the iteration in a sane range.
            x, y = np.clip(x, -2000.0, 4000.0), np.clip(y, -2000.0, 4000.0)
            f2, f3 = self.to_v2v3(x, y)
            step = np.linalg.solve(self.jacobian(x, y), np.stack([v2 - f2, v3 - f3], axis=-1)[..., None])[..., 0]
            x, y = x + step[..., 0], y + step[..., 1]
            if step.size == 0 or np.max(np.abs(step)) < 1e-9:
                break
        return x, y


@dataclass(frozen=True)
class Pointing:
    """Full chain of one exposure of one detector: 0-indexed pixels of the aperture to the sky and back.

    ``attitude`` is named by the aperture's reference point; ``va_scale`` is the scale of differential velocity
    aberration about that point.
    """

    aperture: Aperture
    distortion: Distortion
    attitude: Attitude
    va_scale: float = 1.0

    def to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Right ascension and declination [deg] of 0-indexed aperture pixels."""
        a = self.aperture
        v2, v3 = self.distortion.to_v2v3(np.asarray(x) + a.x_start - 1, np.asarray(y) + a.y_start - 1)
        return self.attitude.to_sky(
            a.v2_ref + (v2 - a.v2_ref) * self.va_scale, a.v3_ref + (v3 - a.v3_ref) * self.va_scale
        )

    def from_sky(self, ra: ArrayLike, dec: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """0-indexed aperture pixels of sky positions [deg]."""
        a = self.aperture
        v2, v3 = self.attitude.from_sky(ra, dec)
        x, y = self.distortion.from_v2v3(
            a.v2_ref + (v2 - a.v2_ref) / self.va_scale, a.v3_ref + (v3 - a.v3_ref) / self.va_scale
        )
        return x - a.x_start + 1, y - a.y_start + 1

    def area(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """Solid angle of aperture pixels [sr]."""
        a = self.aperture
        area = self.distortion.area(np.asarray(x) + a.x_start - 1, np.asarray(y) + a.y_start - 1)
        return area * self.va_scale**2 * ARCSEC**2

    def footprint(self) -> tuple[np.ndarray, np.ndarray]:
        """Right ascension and declination [deg] of the four outer corners."""
        x = np.array([-0.5, self.aperture.x_size - 0.5, self.aperture.x_size - 0.5, -0.5])
        y = np.array([-0.5, -0.5, self.aperture.y_size - 0.5, self.aperture.y_size - 0.5])
        return self.to_sky(x, y)
