"""Replies that somebody makes up who sees the others' traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flwr_caesar.sync.protocol import (
    STALE,
    UPDATE,
    DownloadHeader,
    UploadHeader,
)
from flwr_caesar.sync.sources import TOKEN_BYTES

from .chance import Chance


def forge(
    chance: Chance, header: DownloadHeader, seen: Sequence[UploadHeader]
) -> tuple[UploadHeader, UploadHeader]:
    """Make up a reply to a request.

    A token is a secret, and who has it is the device: a reply under another's token
    answers the request that it answered, and no other.

    Parameters
    ----------
    chance : Chance
        Decides how.
    header : DownloadHeader
        The request.
    seen : sequence of UploadHeader
        Earlier replies of others.

    Returns
    -------
    tuple of UploadHeader
        The forgery, and the earlier reply that it was made from.
    """
    token = chance.random.randbytes(TOKEN_BYTES)
    honest = UploadHeader(
        header.nonce,
        token,
        UPDATE,
        upload_id=chance.new_id(),
        known=(),
    )
    old = chance.random.choice(seen) if seen else honest
    forgeries = [
        old,
        replace(old, token=token, nonce=header.nonce),
        replace(honest, upload_id=old.upload_id or 1, known=old.known),
        replace(honest, known=None),
        replace(honest, upload_id=0, status=STALE, held=((1 << 63) - 1, bytes(8))),
        replace(honest, nonce=chance.new_id()),
        honest,
    ]
    return chance.random.choice(forgeries), old
