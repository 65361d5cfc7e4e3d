"""Arrays that are not made unless somebody reads one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from .layout import Array


class Deferred(Mapping[str, Array]):
    """What a function returns, which is called when the first of it is read.

    So a sender that drops what a codec remembers of a frame, as it learns it again by
    decoding that frame, never has it.

    Parameters
    ----------
    make : callable
        Returns the arrays by name, one at the least; what it needs is not changed
        meanwhile.
    nbytes : int
        What they take.

    Attributes
    ----------
    nbytes : int
        As given.
    """

    def __init__(self, make: Callable[[], dict[str, Array]], nbytes: int) -> None:
        self.nbytes = nbytes
        self._make: Callable[[], dict[str, Array]] | None = make
        self._made: dict[str, Array] = {}

    def _arrays(self) -> dict[str, Array]:
        if self._make is not None:
            self._made = self._make()
            self._make = None
        return self._made

    def __bool__(self) -> bool:
        """Whether there is any array, which needs none of them."""
        return True

    def __getitem__(self, name: str) -> Array:
        """Return an array by name."""
        return self._arrays()[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._arrays())

    def __len__(self) -> int:
        """Return how many arrays there are."""
        return len(self._arrays())


def nbytes_of(arrays: Mapping[str, Array]) -> int:
    """Return what arrays take, without making those that are not made yet."""
    if isinstance(arrays, Deferred):
        return arrays.nbytes
    return sum(array.nbytes for array in arrays.values())
