"""Which tensors a model has in common with the versions published before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from flwr_caesar.codec.contract.layout import Array
from flwr_caesar.frozen import frozen
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.sync.part import same_tensor

MAX_VERSIONS = 1000
"""Older versions remembered; a device that holds one older still gets a whole model."""


@frozen
class Unchanged:
    """When each tensor changed last, and when each version was published.

    Immutable; it holds no tensor. Versions are named by their digests, so a model that
    comes back is the newest of its name.

    Parameters
    ----------
    count : int
        Models published so far.
    published : mapping of bytes to int
        Of each version, how many were before it, oldest first.
    changed : mapping of str to int
        Of each tensor, how many models were before the one that it changed with.
    """

    count: int = 0
    published: Mapping[bytes, int] = field(default_factory=dict)
    changed: Mapping[str, int] = field(default_factory=dict)

    def publish(
        self,
        digest: bytes,
        model: Mapping[str, Array],
        before: Mapping[str, Array] | None,
    ) -> Unchanged:
        """Return what is known after a model was published.

        Parameters
        ----------
        digest : bytes
            Of the model.
        model : mapping of str to ndarray
            The model.
        before : mapping of str to ndarray, optional
            The one published before it; `None` if that is not at hand: then it is known
            by its digest only.
        """
        is_last = self.published.get(digest, -1) == self.count - 1
        if before is None and is_last and self.changed.keys() == model.keys():
            return self
        changed = dict.fromkeys(model, self.count)
        for name, array in model.items():
            other = before.get(name) if before and name in self.changed else None
            if other is not None and same_tensor(array, other):
                changed[name] = self.changed[name]
        published = {d: n for d, n in self.published.items() if d != digest}
        published[digest] = self.count
        for oldest in list(published)[:-MAX_VERSIONS]:
            del published[oldest]
        return replace(self, count=self.count + 1, published=published, changed=changed)

    def since(self, digest: bytes) -> frozenset[str] | None:
        """Return the tensors that changed since a version; `None` if it is unknown."""
        if digest not in self.published:
            return None
        then = self.published[digest]
        return frozenset(name for name, when in self.changed.items() if when > then)

    def to_tree(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        published = [[digest.hex(), when] for digest, when in self.published.items()]
        return {
            "count": self.count,
            "published": published,
            "changed": dict(self.changed),
        }


def restored(tree: Any) -> Unchanged:
    """Return what `Unchanged.to_tree` was taken of.

    Raises
    ------
    DamagedStateError
        If it was not.
    """
    try:
        return Unchanged(
            int(tree["count"]),
            {bytes.fromhex(digest): int(when) for digest, when in tree["published"]},
            {str(name): int(when) for name, when in tree["changed"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise DamagedStateError(
            f"what is known of published models is malformed: {err!r}"
        ) from err
