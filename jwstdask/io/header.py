"""FITS header blocks: a light parser, and cards as text.

A product has about 300 cards. Parsing them here takes about a millisecond; the text of the header is kept, so that
nothing of an unknown keyword is lost. Cards are formatted by `astropy.io.fits`, which knows every corner of the
standard (FITS 4.0, section 4).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

BLOCK = 2880
CARD = 80
END = b"END" + b" " * 77

_STRING = re.compile(r" *'((?:[^']|'')*)' *(?:/ ?(.*))?$")
_INTEGER = re.compile(r"[+-]?\d+$")
_COMMENTARY = frozenset(("", "COMMENT", "HISTORY"))
# Keywords that describe the file itself and not the exposure, after the FITS standard and the writer of stdatamodels.
_STRUCTURAL = re.compile(
    r"(?:NAXIS\d{0,3}|BITPIX|XTENSION|PCOUNT|GCOUNT|EXTEND|BSCALE|BZERO|BLANK|DATAMAX|DATAMIN|EXTNAME|EXTVER|EXTLEVEL|GROUPS|PYTPE\d|PSCAL\d"
    r"|PZERO\d|SIMPLE|TFIELDS|T(?:BCOL|DIM|FORM|TYPE|UNIT|SCAL|ZERO|NULL|DISP)\d{1,3}|HISTORY|)$"
)


@lru_cache(maxsize=10_000)
def is_structural(keyword: str) -> bool:
    """True for the keywords that describe the file: NAXIS, BITPIX, TFORMn, ...; these are never carried over."""
    return _STRUCTURAL.match(keyword) is not None


class Header:
    """One FITS header, read only.

    Parameters
    ----------
    text
        The cards up to, not including, END, 80 characters each.
    """

    __slots__ = ("_cards", "_values", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._values: dict[str, Any] | None = None
        self._cards: list[tuple[str, Any, str]] | None = None

    def __reduce__(self):
        return Header, (self.text,)

    def __len__(self) -> int:
        return len(self.cards)

    @property
    def cards(self) -> list[tuple[str, Any, str]]:
        """All cards as (keyword, value, comment), in order; blank keyword for blank cards."""
        if self._cards is None:
            self._cards = list(_parse(self.text))
        return self._cards

    @property
    def values(self) -> dict[str, Any]:
        """Value of each keyword (the first one where a keyword is repeated), commentary left out."""
        if self._values is None:
            values: dict[str, Any] = {}
            for keyword, value, _ in self.cards:
                if keyword not in _COMMENTARY:
                    values.setdefault(keyword, value)
            self._values = values
        return self._values

    @property
    def structure(self) -> dict[str, Any]:
        """Values of the keywords that say where data are."""
        return {keyword: value for keyword, value in self.values.items() if is_structural(keyword)}

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.values

    def __getitem__(self, keyword: str) -> Any:
        return self.values[keyword]

    def get(self, keyword: str, default: Any = None) -> Any:
        return self.values.get(keyword, default)

    def commentary(self, keyword: str) -> list[str]:
        """Texts of the HISTORY or COMMENT cards."""
        return [value for name, value, _ in self.cards if name == keyword]

    def astropy(self):
        """The header as an `astropy.io.fits.Header`."""
        from astropy.io import fits

        return fits.Header.fromstring(self.text)


def _parse(text: str) -> Iterator[tuple[str, Any, str]]:
    position, size = 0, len(text)
    while position < size:
        keyword, value, comment = _parse_card(text[position : position + CARD])
        position += CARD
        # A long string goes on in CONTINUE cards as long as the piece so far ends in "&" (FITS 4.0, section 4.2.1.2).
        while text.startswith("CONTINUE", position) and isinstance(value, str) and value.endswith("&"):
            if keyword in _COMMENTARY:
                break
            piece, more = _parse_value(text[position + 8 : position + CARD])
            position += CARD
            value = value[:-1] + (piece if isinstance(piece, str) else "")
            comment = f"{comment} {more}".strip()
        yield keyword, value, comment


@lru_cache(maxsize=10_000)
def _parse_card(card: str) -> tuple[str, Any, str]:
    """Keyword, value and comment. Exposures have most cards in common: those of thousands of files are parsed once."""
    if card[8:10] == "= ":
        return card[:8].rstrip(), *_parse_value(card[10:])
    if card.startswith("HIERARCH ") and "=" in card:
        keyword, _, rest = card[9:].partition("=")
        return keyword.strip().upper(), *_parse_value(rest)
    return card[:8].rstrip(), card[8:].rstrip(), ""


def _parse_value(field: str) -> tuple[Any, str]:
    match = _STRING.match(field)
    if match is not None:
        return match.group(1).replace("''", "'").rstrip(), (match.group(2) or "").rstrip()
    value, _, comment = field.partition("/")
    value = value.strip()
    comment = comment.strip()
    if not value:
        return None, comment
    if value in ("T", "F"):
        return value == "T", comment
    if _INTEGER.match(value):
        return int(value), comment
    try:
        return float(value.replace("D", "E").replace("d", "e")), comment
    except ValueError:
        # A complex number, an unquoted string, a broken card: kept as text, never an error.
        return value, comment


def card_text(keyword: str, value: Any, comment: str = "") -> str:
    """One keyword as text: a multiple of 80 characters.

    Raises
    ------
    ValueError
        If the value cannot stand in a FITS header (NaN, infinity, control characters).
    """
    # Common short strings, integers and floats are formatted here: same text, a tenth of the time.
    if len(keyword) <= 8:
        kind = type(value)
        if kind is int or kind is bool:
            body = f"{value:>20d}" if kind is int else f"{'T' if value else 'F':>20}"
        elif kind is str and 0 < len(value) <= 60 and "'" not in value and value.isascii() and value.isprintable():
            quoted = f"'{value.rstrip():8}'"
            body = f"{quoted:20}"
        elif kind is float and math.isfinite(value):
            body = str(value).replace("e", "E")
            body = f"{body:>20}" if len(body) <= 20 else ""
        else:
            body = ""
        if body and len(body) <= CARD - 10 and comment.isascii():
            text = f"{keyword:8}= {body} / {comment}" if comment else f"{keyword:8}= {body}"
            # A comment that is too long is cut, here and below: astropy would warn, and warnings cannot be silenced in
            # one thread alone.
            return f"{text:80}"[:CARD]
    from astropy.io import fits

    bare = str(fits.Card(keyword, value))
    if len(keyword) > 8 or len(bare) > CARD or not comment or not comment.isascii():
        return str(fits.Card(keyword, value, comment))
    width = 0 if value == "" else 30
    return f"{bare.rstrip():{width}} / {comment}"[:CARD].ljust(CARD)


def title_text(title: str) -> str:
    """A section title: blank card, title, blank card."""
    blank = " " * CARD
    return blank + commentary_text("", title) + blank


def commentary_text(keyword: str, text: str) -> str:
    """HISTORY, COMMENT or blank cards, broken at 72 characters."""
    pieces = [text[start : start + 72] for start in range(0, len(text), 72)] or [""]
    return "".join(f"{keyword:8}{piece:72}" for piece in pieces)


def header_bytes(cards: Iterable[str]) -> bytes:
    """Cards with END, padded to whole blocks."""
    text = "".join(cards).encode("ascii", "replace") + END
    return text + b" " * (-len(text) % BLOCK)
