"""What the services of server and device use of Flower beyond its public names.

As `flwr_caesar.flower`, whose errors these are too, and apart from it: an app's process
starts anew for each message and has no use for clients of Flower's APIs.
"""

from __future__ import annotations

from flwr_caesar.flower import flower_version

try:
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
    from flwr.proto.control_pb2 import (
        ListNodesRequest,
        RegisterNodeRequest,
        UnregisterNodeRequest,
    )
    from flwr.proto.fleet_pb2 import ActivateNodeRequest
    from flwr.supercore.constant import (
        FLEET_HTTP_PUBLIC_KEY_HEADER,
        FLWR_PACKAGE_VERSION_METADATA_KEY,
    )
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.error import ApiErrorCode, FlowerError
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes
    from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
except ImportError as error:
    raise ImportError(
        f"flwr-caesar cannot deploy with {flower_version()}: {error}; install another "
        "version of flwr, or a newer flwr-caesar",
        name=error.name,
    ) from error

__all__ = [
    "FLEET_HTTP_PUBLIC_KEY_HEADER",
    "FLWR_PACKAGE_VERSION_METADATA_KEY",
    "SYSTEM_TIME_TOLERANCE",
    "TIMESTAMP_TOLERANCE",
    "ActivateNodeRequest",
    "ApiErrorCode",
    "ControlHttpClient",
    "FleetHttpClient",
    "FlowerError",
    "ListNodesRequest",
    "NodeAuthHttpInterceptor",
    "ProtobufCall",
    "ProtobufRequestContext",
    "RegisterNodeRequest",
    "UnregisterNodeRequest",
    "public_key_to_bytes",
]
