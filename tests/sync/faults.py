"""States to keep, and a disk that fails at a chosen call."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from flwr_caesar.codec.contract.layout import DTYPE_CODES, Array
from flwr_caesar.sync.state import MODEL_PAYLOAD, DeviceState, Pending

CALLS = ("open", "write", "fsync", "replace", "mkdir", "unlink")


def every_dtype(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for name in DTYPE_CODES:
        dtype = ml_dtypes.bfloat16 if name == "bfloat16" else np.dtype(name)
        arrays[f"a {name} ✓"] = rng.integers(0, 2, (3, 5)).astype(dtype)
        arrays[f"{name}.0"] = rng.integers(0, 2, ()).astype(dtype)
        arrays[f"{name}.empty"] = np.zeros((0, 4), dtype)
    arrays["__metadata__x"] = rng.standard_normal((7, 6)).astype(">f4").T[::2]
    return arrays


def sample(seed: int, *, lineage: int = 2**64 - 1, version: int = 3) -> DeviceState:
    rng = np.random.default_rng(seed)
    return DeviceState(
        token=rng.bytes(16),
        lineage=lineage,
        order=(2**62 + seed, 7),
        version=version,
        digest=version.to_bytes(8, "little"),
        model=every_dtype(version),
        residual={"w": rng.standard_normal(50).astype(np.float32), "a/b": np.ones(2)},
        pending=(
            Pending(2**64 - 2, (1, 1), b""),
            Pending(9, (2, 2), rng.bytes(1000), MODEL_PAYLOAD, '{"part": {"x": 1}}'),
        ),
        settled=(1, 2**64 - 1),
        codec_version=4,
        codec_arrays={"": np.arange(4.0), "__metadata__": np.zeros(3, bool)},
        extras={"h/w": rng.standard_normal(3), "x": np.ones((), np.int8)},
    )


def image(state: DeviceState | None) -> Any:
    """Return a state as values that can be compared, byte by byte."""
    if state is None:
        return None
    return {
        name: _flat(value) if isinstance(value, Mapping) else value
        for name, value in vars(state).items()
    }


def _flat(arrays: Mapping[str, Array]) -> list[tuple[str, str, Any, bytes]]:
    return [
        (name, a.dtype.name, a.shape, a.astype(a.dtype.newbyteorder("<")).tobytes())
        for name, a in arrays.items()
    ]


@contextlib.contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """Collect what is written to Flower's log."""
    records: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Handler()
    logger = logging.getLogger("flwr")
    # Hydra, in another test, disables the loggers that are there before it.
    disabled, logger.disabled = logger.disabled, False
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)
    logger.disabled = disabled


class Killed(BaseException):
    """The process died here."""


@contextlib.contextmanager
def failing_at(call: int, *, kill: bool) -> Iterator[list[str]]:
    """Fail at a call to the file system, counted from 0, and at all after it.

    A process that is killed has torn the write it was in; a full disk says so.
    """
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, _wrap(name, getattr(os, name), seen, call, kill))
        yield seen


def _wrap(name: str, real: Any, seen: list[str], call: int, kill: bool) -> Any:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        seen.append(name)
        if len(seen) <= call or (not kill and name in ("unlink", "fsync")):
            return real(*args, **kwargs)
        if name == "write":
            real(args[0], memoryview(args[1])[: len(args[1]) // 2])
        if kill:
            raise Killed
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return wrapped
