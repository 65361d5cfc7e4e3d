"""Replies that somebody makes up who sees the others' traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flwr_caesar.sync.protocol import TOKEN_BYTES, UPDATE, DownloadHeader, UploadHeader

from .chance import Chance


def forge(
    chance: Chance, header: DownloadHeader, seen: Sequence[UploadHeader]
) -> tuple[UploadHeader, UploadHeader]:
    """Make up a reply to a request.

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
        header.lineage,
        header.order,
        header.nonce,
        token,
        UPDATE,
        header.target,
        header.target,
        chance.new_id(),
    )
    old = chance.random.choice(seen) if seen else honest
    forgeries = [
        old,
        replace(old, nonce=header.nonce),
        replace(old, token=token, nonce=header.nonce, order=header.order),
        replace(honest, upload_id=old.upload_id or 1, known=old.known),
        replace(honest, lineage=chance.new_id()),
        replace(honest, order=((1 << 63) - 1, (1 << 63) - 1)),
        replace(honest, base=((1 << 63) - 1, bytes(8))),
        replace(honest, nonce=chance.new_id()),
        honest,
    ]
    return chance.random.choice(forgeries), old
