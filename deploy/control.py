"""The SuperLink's Control API, reached on loopback: which keys may connect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from .fleet import FleetError
from .flower import (
    ApiErrorCode,
    ControlHttpClient,
    FlowerError,
    ListNodesRequest,
    RegisterNodeRequest,
    UnregisterNodeRequest,
)
from .server_folder import ServerFolder


class SuperLinkDownError(FleetError):
    """The SuperLink does not answer."""


class KeySpentError(FleetError):
    """Flower had this key before and took it out; it never takes it again."""


@dataclass(frozen=True)
class Node:
    """What Flower knows of a registered key.

    Parameters
    ----------
    node_id : int
        Flower's id.
    name : str
        As it was registered.
    state : str
        ``registered``, ``online`` or ``offline``.
    """

    node_id: int
    name: str
    state: str


class Control:
    """Calls of the Control API.

    Parameters
    ----------
    client : ControlHttpClient
        Flower's own client.
    """

    def __init__(self, client: ControlHttpClient) -> None:
        self._client = client

    def nodes(self) -> Mapping[bytes, Node]:
        """Return all registered keys."""
        with _explained():
            listed = self._client.ListNodes(ListNodesRequest())
        return {
            node.public_key: Node(node.node_id, node.name, node.status)
            for node in listed.nodes_info
        }

    def register(self, public_key: bytes, name: str) -> int:
        """Let a key connect, and return its node id.

        Raises
        ------
        KeySpentError
            If the key was unregistered before.
        """
        request = RegisterNodeRequest(public_key=public_key, name=name)
        try:
            with _explained():
                return self._client.RegisterNode(request).node_id
        except KeySpentError:
            node = self.nodes().get(public_key)
            if node is None:
                raise
            return node.node_id

    def unregister(self, node_id: int) -> None:
        """Let a key connect no more; harmless if it cannot already."""
        try:
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))
        except httpx.HTTPStatusError as err:
            if _code(err) != ApiErrorCode.NODE_NOT_FOUND:
                raise _reason(err) from err
        except httpx.TransportError as err:
            raise _down(err) from err


@contextmanager
def connect(folder: ServerFolder) -> Iterator[Control]:
    """Open the Control API of a server on this machine.

    Parameters
    ----------
    folder : ServerFolder
        The server's.
    """
    client = ControlHttpClient.from_server_address(
        folder.settings.superlink,
        insecure=False,
        root_certificates=folder.authority_pem(),
        interceptors=[],
    )
    with client:
        yield Control(client)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as err:
        if _code(err) == ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
            raise KeySpentError("Flower had this key before and took it out") from err
        raise _reason(err) from err
    except httpx.TransportError as err:
        raise _down(err) from err


def _code(err: httpx.HTTPStatusError) -> int | None:
    flower = FlowerError.from_json(err.response.text)
    return None if flower is None else flower.code


def _reason(err: httpx.HTTPStatusError) -> FleetError:
    return FleetError(f"the SuperLink refused: {err.response.text.strip():.300}")


def _down(err: httpx.TransportError) -> SuperLinkDownError:
    return SuperLinkDownError(
        f"the SuperLink does not answer ({err}): is flwr-caesar-superlink.service "
        "running?"
    )
