"""Codecs of others beside ours: SZ3 and NNCodec, where they are installed."""

from .peer import Peer
from .registry import PEERS, get_peer

__all__ = ["PEERS", "Peer", "get_peer"]
