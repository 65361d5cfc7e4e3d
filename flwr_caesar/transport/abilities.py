"""What a device can, where that is less than its server's release does."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from flwr_caesar.codec import CodecError, inspect_frame
from flwr_caesar.frozen import frozen

from .plan import Plan

MAX_ABILITIES_CHARS = 1 << 11
_MOST, _LONGEST = 64, 64
_CODECS, _PARTS = "codecs", "parts"


@frozen
class Abilities:
    """Codecs and parts that a device has.

    Parameters
    ----------
    codecs : frozenset of str
        Ids of those whose frames it reads, and, but for ``"lattice_model"``, writes;
        ``"dense"`` is among them.
    parts : frozenset of str
        Names of the parts (`flwr_caesar.methods`) that it has.

    Raises
    ------
    CodecError
        If these are too many, no names, or without ``"dense"``.
    """

    codecs: frozenset[str]
    parts: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for names in (self.codecs, self.parts):
            if len(names) > _MOST or not all(map(_is_name, names)):
                raise CodecError("a device's abilities are no short lists of names")
        if "dense" not in self.codecs:
            raise CodecError("a device has to have the codec 'dense'")
        if len(self.to_text()) > MAX_ABILITIES_CHARS:
            raise CodecError(
                f"a device's abilities have more than {MAX_ABILITIES_CHARS} characters"
            )

    def to_mapping(self) -> dict[str, list[str]]:
        """Return them as JSON has them: sorted lists, no parts left out."""
        parts = {_PARTS: sorted(self.parts)} if self.parts else {}
        return {_CODECS: sorted(self.codecs), **parts}

    def to_text(self) -> str:
        """Return the one text of these abilities."""
        return json.dumps(self.to_mapping(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def of(cls, found: Any) -> Abilities:
        """Read what `to_mapping` returned, from whoever sent it.

        Raises
        ------
        CodecError
            If it is not such a mapping.
        """
        if not isinstance(found, Mapping) or found.keys() - {_CODECS, _PARTS}:
            raise CodecError("a device's abilities are no mapping of two lists")
        lists = [found.get(key, []) for key in (_CODECS, _PARTS)]
        for names in lists:
            if not isinstance(names, list) or not all(
                isinstance(name, str) for name in names
            ):
                raise CodecError("a device's abilities are no lists of names")
            if len(set(names)) != len(names):
                raise CodecError("a device's abilities name something twice")
        return cls(*map(frozenset, lists))

    def lacking(self, plan: Plan, frame: bytes | None) -> str:
        """Return what a request needs that is not here; empty if nothing.

        Parameters
        ----------
        plan : Plan
            Of the request.
        frame : bytes, optional
            With the model. One that is no frame is none of this function's business.
        """
        needed = [plan.upload.get("id")] if plan.upload else []
        if frame is not None:
            with suppress(CodecError):
                needed.append(inspect_frame(frame).config["id"])
        if plan.part and plan.part not in self.parts:
            return f"no part {plan.part!a:.60}"
        return _first_missing(needed, self.codecs)


def _first_missing(needed: Collection[Any], codecs: frozenset[str]) -> str:
    for name in needed:
        if name not in codecs:
            return f"no codec {name!a:.60}"
    return ""


def _is_name(name: str) -> bool:
    return 1 <= len(name) <= _LONGEST and name.isascii() and name.isprintable()
