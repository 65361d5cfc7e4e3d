"""The Flower mod: plain arrays for the app, frames on the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from os import PathLike
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, Context, Message

from flwr_caesar.flower import ClientAppCallable
from flwr_caesar.frozen import frozen
from flwr_caesar.sync.sources import Sources

if TYPE_CHECKING:
    from flwr_caesar.transport import Abilities


@frozen
class CompressionMod:
    """Decode the download, call the app, encode its update.

    Add one with ``ClientApp(mods=[compression_mod])``, first in the list: mods behind
    it, such as clipping or noise, see plain arrays. The app receives and returns plain
    ArrayRecords. A message that is not ours passes untouched, so the same ClientApp
    also serves a strategy that does not compress.

    What the device could not send yet, and what it sent and the server has not
    acknowledged, is kept between messages; see `flwr_caesar.clients.store`.

    Parameters
    ----------
    initial : ArrayRecord or callable, optional
        The arrays that the ServerApp starts from, or a function of the Context that
        makes them. A device that is new then downloads only what changed since; if
        they turn out to differ, it is sent a whole model.
    labels : callable, optional
        Function of the Context that returns how many examples the device has of each
        label. Strategies that rank devices by their data ask for it once. Without it
        the device reveals nothing but the number of its examples.
    record : path, optional
        Folder in which each update is written, as ``node-ID/round-N.npz``: for
        ``flwr-caesar codec bench``. What is written there is what the device learned,
        uncompressed and unprotected.
    can : Abilities, optional
        What this device does of all that its release can; it tells the server, which
        asks for no more, and declines what goes beyond. By default it does all, and
        tells nothing.
    sources : Sources, optional
        Where its token and the ids of its uploads come from, for runs that are to
        repeat. By default the machine's.
    """

    initial: ArrayRecord | Callable[[Context], ArrayRecord] | None = None
    labels: Callable[[Context], Sequence[int]] | None = None
    record: str | PathLike[str] | None = None
    can: Abilities | None = field(default=None, kw_only=True)
    sources: Sources = field(default_factory=Sources, kw_only=True)

    def __call__(
        self, msg: Message, context: Context, call_next: ClientAppCallable
    ) -> Message:
        """Handle one message.

        Raises
        ------
        CodecError
            If a message is damaged, or the app returns arrays whose names or shapes
            differ from the model it was given.
        StateError
            If the device's state cannot be kept; nothing is sent then. Flower reports
            either to the server, which drops this reply and goes on with the others.
        """
        if not msg.has_content():
            return call_next(msg, context)
        from .handling import handle  # an app is imported for less than a message

        return handle(self, msg, context, call_next)


compression_mod = CompressionMod()
