"""What became of the tasks of a program, however many."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping, Sequence
from typing import Any, overload

from jwstdask.core.plan import Outcome
from jwstdask.io.shelf import Kept, Shelf


class Outcomes(Sequence[Outcome]):
    """Outcomes of many tasks, held on a shelf: as objects each takes as much memory as its plan or more."""

    def __init__(self) -> None:
        self._shelf = Shelf()
        self._kept: list[Kept] = []
        self._keys: list[tuple[str, str]] = []

    def append(self, outcome: Outcome) -> None:
        """Add one at the end."""
        self._kept.append(self._shelf.put(pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL)))
        self._keys.append((sys.intern(outcome.pipeline), outcome.path))

    def ordered(self, order: Mapping[tuple[str, str], int]) -> Outcomes:
        """Sorted by the place of their pipeline and path; those without one at the end."""
        found = Outcomes()
        for place in sorted(range(len(self)), key=lambda place: order.get(self._keys[place], len(order))):
            found._kept.append(self._kept[place])
            found._keys.append(self._keys[place])
        return found

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, place: int) -> Outcome: ...
    @overload
    def __getitem__(self, place: slice) -> list[Outcome]: ...
    def __getitem__(self, place: int | slice) -> Outcome | list[Outcome]:
        if isinstance(place, slice):
            return [self[item] for item in range(*place.indices(len(self)))]
        return pickle.loads(self._kept[place].read())

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)
