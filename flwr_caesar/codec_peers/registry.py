"""Peers by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr_caesar.codec import CodecError, Layout

from .nncodec import NNCodecPeer
from .peer import Peer
from .sz3 import Sz3Peer

PEERS: dict[str, type[Peer]] = {peer.id: peer for peer in (Sz3Peer, NNCodecPeer)}


def get_peer(name: str, settings: Mapping[str, Any], layout: Layout) -> Peer:
    """Return a peer.

    Parameters
    ----------
    name : {"sz3", "nncodec"}
        Which.
    settings : mapping
        Its parameters.
    layout : Layout
        Of what it is to encode.

    Raises
    ------
    CodecError
        If there is none of that name, it is not installed, or a setting is wrong.
    """
    if name not in PEERS:
        raise CodecError(f"no peer {name!r}; there are {', '.join(PEERS)}")
    try:
        return PEERS[name](layout=layout, **settings)
    except TypeError as err:
        raise CodecError(f"{name}: {err}") from err
