"""Data-quality flags of the JWST pipeline.

``GROUPDQ`` is uint8 and knows bits 0 to 7; ``PIXELDQ`` and ``DQ`` are uint32. Source: JWST pipeline documentation,
"Data Quality Flags". ``OUTLIER`` exists in the pixel set only.
"""

from __future__ import annotations

DO_NOT_USE = 1 << 0
SATURATED = 1 << 1
JUMP_DET = 1 << 2
DROPOUT = 1 << 3
OUTLIER = 1 << 4
PERSISTENCE = 1 << 5
AD_FLOOR = 1 << 6
CHARGELOSS = 1 << 7
RESERVED = 1 << 8
NON_SCIENCE = 1 << 9
DEAD = 1 << 10
HOT = 1 << 11
WARM = 1 << 12
LOW_QE = 1 << 13
RC = 1 << 14
TELEGRAPH = 1 << 15
NONLINEAR = 1 << 16
BAD_REF_PIXEL = 1 << 17
NO_FLAT_FIELD = 1 << 18
NO_GAIN_VALUE = 1 << 19
NO_LIN_CORR = 1 << 20
NO_SAT_CHECK = 1 << 21
UNRELIABLE_BIAS = 1 << 22
UNRELIABLE_DARK = 1 << 23
UNRELIABLE_SLOPE = 1 << 24
UNRELIABLE_FLAT = 1 << 25
OPEN = 1 << 26
ADJ_OPEN = 1 << 27
FLUX_ESTIMATED = 1 << 28
MSA_FAILED_OPEN = 1 << 29
OTHER_BAD_PIXEL = 1 << 30
REFERENCE_PIXEL = 1 << 31

PIXEL: dict[str, int] = {
    name: value for name, value in list(globals().items()) if name.isupper() and isinstance(value, int)
}
"""Name to value of the pixel flags, in order of their bits."""

GROUP: dict[str, int] = {name: value for name, value in PIXEL.items() if value < 256 and name != "OUTLIER"}
"""Name to value of the group flags."""


def parse(flags: str | int | None) -> int:
    """Bits named by a JWST flag expression such as ``"DO_NOT_USE+NON_SCIENCE"`` or ``"1, 512"``.

    Parameters
    ----------
    flags
        Sum, comma list or integer; a leading ``~`` is *not* interpreted here (see :func:`bad_bits`).

    Raises
    ------
    ValueError
        If a name is not a pixel flag.
    """
    if flags is None or flags == "":
        return 0
    if isinstance(flags, int):
        return flags
    value = 0
    for part in flags.replace(",", "+").replace("|", "+").split("+"):
        name = part.strip().upper()
        if name.isdigit():
            value |= int(name)
        elif name in PIXEL:
            value |= PIXEL[name]
        else:
            raise ValueError(f"{part.strip()!r} is not a data-quality flag")
    return value


def bad_bits(good_bits: str | int | None) -> int:
    """Bits that make a pixel unusable, given jwst's ``good_bits`` expression.

    ``"~DO_NOT_USE+NON_SCIENCE"`` names the bad bits; without ``~`` the named bits are tolerated and all others are bad;
    None means that every pixel is good.
    """
    if good_bits is None:
        return 0
    if isinstance(good_bits, str) and good_bits.strip().startswith("~"):
        return parse(good_bits.strip()[1:].strip("() "))
    return 0xFFFFFFFF & ~parse(good_bits)
