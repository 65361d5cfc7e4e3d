"""What of a conversation is in its file: messages, states, and what replies say.

`tests/sync/conversations/README.md` is the description for other languages.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from flwr_caesar.codec import (
    CodecState,
    Layout,
    get_codec,
    inspect_frame,
    update_layout,
)
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.contract.frame import RAISED, FrameReader
from flwr_caesar.codec.contract.raised import unpack_raised
from flwr_caesar.sync.protocol import UploadHeader
from flwr_caesar.sync.state import MODEL_PAYLOAD, DeviceState
from flwr_caesar.sync.wire import Reader, opened
from flwr_caesar.transport import (
    NOTE_KEY,
    DeviceReport,
    arrays_to_record,
    is_frame,
    note_of,
    plain_record,
    record_to_arrays,
    record_to_frame,
    require_note,
    without_note,
)
from flwr_caesar.transport.seconds import SECONDS_BYTES
from flwr_caesar.transport.short import unpack_mapping

FORMAT = 1
_DENSE = get_codec("dense")


def text(data: bytes) -> str:
    return b64encode(data).decode()


def content_to_json(content: RecordDict) -> list[list[Any]]:
    """Return records as ``[name, kind, entries]``, in order."""
    found: list[list[Any]] = []
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            if is_frame(record) or any(
                a.stype != "numpy.ndarray" for a in record.values()
            ):
                arrays = [
                    [key, a.dtype, list(a.shape), a.stype, text(a.data)]
                    for key, a in record.items()
                ]
                found.append([name, "arrays", arrays])
            else:
                arrays = record_to_arrays(record)
                found.append([name, "tensors", tensors_to_json(arrays)])
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            values = [[key, _value_to_json(value)] for key, value in record.items()]
            found.append([name, kind, values])
    return found


def content_from_json(found: list[list[Any]]) -> RecordDict:
    """Return what `content_to_json` was given."""
    content = RecordDict()
    for name, kind, entries in found:
        if kind == "arrays":
            content[name] = ArrayRecord(
                {
                    key: Array(dtype, tuple(shape), stype, b64decode(data))
                    for key, dtype, shape, stype, data in entries
                }
            )
        elif kind == "tensors":
            content[name] = arrays_to_record(tensors_from_json(entries))
        else:
            record = MetricRecord if kind == "metrics" else ConfigRecord
            content[name] = record({key: _value(value) for key, value in entries})
    return content


def comparable(content: RecordDict) -> list[Any]:
    """Return what has to be equal of two replies, whoever packed them."""
    note = opened(require_note(content))
    reader = Reader(note)
    UploadHeader.read(reader)
    reader.take(SECONDS_BYTES)
    told = reader.rest()
    claims = unpack_mapping(told, most=1 << 20)
    found: list[Any] = [note[: len(note) - len(told)].hex(), claims]
    for name, record in content.items():
        if isinstance(record, ArrayRecord) and is_frame(record):
            info = inspect_frame(record_to_frame(record))
            leads = note_of(RecordDict({name: record})) is not None
            what = info.config, info.layout_digest.hex(), info.base_version, leads
            found.append([name, *what])
            if "TABL" in info.sections and not info.base_version:
                plain = record_to_arrays(plain_record(record))
                found.append([name, model_digest(plain).hex()])
        elif name != NOTE_KEY:
            found += content_to_json(without_note(RecordDict({name: record})))
        if not isinstance(record, ArrayRecord) and note_of(RecordDict({name: record})):
            found.append(["the note is in", name])
    return found


def tensors_to_json(arrays: Mapping[str, Any]) -> str:
    return text(_DENSE.encode(arrays, finite=False)[0])


def tensors_from_json(found: str) -> dict[str, Any]:
    return _DENSE.decode(b64decode(found), finite=False)[0]


def _value_to_json(value: Any) -> Any:
    return {"base64": text(value)} if isinstance(value, bytes) else value


def _value(found: Any) -> Any:
    return b64decode(found["base64"]) if isinstance(found, dict) else found


def state_to_json(state: DeviceState | None) -> dict[str, Any] | None:
    """Return all of a state that another implementation has to have, too."""
    if state is None:
        return None
    held = {"number": state.version, "digest": state.digest.hex()}
    found: dict[str, Any] = {
        "token": state.token.hex(),
        "order": list(state.order),
        "held": held if state.version >= 0 else None,
        "residual": model_digest(_in_order(state)).hex() if state.residual else None,
        "pending": [
            {
                "id": str(p.upload_id),
                "order": list(p.order),
                "payload": p.payload,
                "values": _values(p.frame, state, p.payload),
            }
            for p in state.pending
        ],
        "settled": [str(upload) for upload in state.settled],
    }
    if state.reported:
        found["reported"] = [state.reported, str(state.reported_by)]
    if state.version >= 0 and model_digest(state.model) != state.digest:
        found["model"] = model_digest(state.model).hex()  # one that is inexact
    return found


def upload_to_json(frame: bytes, state: DeviceState, payload: str) -> dict[str, Any]:
    """Return what a frame says, but for how its writer packed it."""
    info, reader = inspect_frame(frame), FrameReader(frame)
    found: dict[str, Any] = {
        "config": dict(info.config),
        "lineage": f"{info.lineage:016x}",
        "base": info.base_version,
        "writer": "exact" if _is_exact(info.config) else "free",
        "layout": info.layout_digest.hex(),
        "table": "TABL" in info.sections,
        "values": _values(frame, state, payload),
    }
    if info.flags & RAISED:
        layout = update_layout(Layout.of(state.model))
        found["raised"] = unpack_raised(reader, layout)
    return found


def _is_exact(config: Mapping[str, Any]) -> bool:
    """Whether all writers are to send the same values."""
    by_step = config["id"] == "lattice" and config["step"]
    whole = config["id"] == "prune" and config.get("bits", 32) == 32
    return bool(by_step or whole or config["id"] in ("dense", "topk"))


def _in_order(state: DeviceState) -> dict[str, Any]:
    residual = {name: state.residual[name] for name in state.residual}
    order = [name for name in state.model if name in residual]
    assert len(order) == len(residual)
    return {name: residual[name] for name in order}


def _values(frame: bytes, state: DeviceState, payload: str) -> str:
    layout = Layout.of(state.model)
    if payload != MODEL_PAYLOAD:
        layout = update_layout(layout)
    info = inspect_frame(frame)
    known = None if "TABL" in info.sections else CodecState(layout)
    codec = get_codec(info.config)
    return model_digest(codec.decode(frame, known, raised=False)[0]).hex()


def seen(content: RecordDict) -> dict[str, Any]:
    """Return what an app is given."""
    digests = {
        name: model_digest(record_to_arrays(record)).hex()
        for name, record in content.array_records.items()
    }
    others = RecordDict(
        {n: r for n, r in content.items() if not isinstance(r, ArrayRecord)}
    )
    return {
        "records": list(content),
        "tensors": digests,
        "others": content_to_json(others),
    }


def explained(reply: RecordDict, state: DeviceState | None) -> dict[str, Any]:
    """Return what a reply says, in words, for who looks why it differs."""
    report, header = DeviceReport.read(reply)
    held, telemetry = header.held, report.telemetry
    found: dict[str, Any] = {
        "status": header.status,
        "known": None if header.known is None else [str(i) for i in header.known],
        "held": None if held is None else [held[0], held[1].hex()],
        "claims": {
            **({"labels": list(report.labels)} if report.labels else {}),
            **({"part": dict(report.part)} if report.part else {}),
            **({"telemetry": telemetry.to_mapping()} if telemetry else {}),
            **({"can": report.can.to_mapping()} if report.can else {}),
        },
    }
    frames = {n: r for n, r in reply.array_records.items() if is_frame(r)}
    if header.upload_id:
        assert state is not None
        (pending,) = [p for p in state.pending if p.upload_id == header.upload_id]
        (name,) = [n for n, r in frames.items() if record_to_frame(r) == pending.frame]
        found["upload"] = {
            "record": name,
            "id": str(header.upload_id),
            **upload_to_json(pending.frame, state, pending.payload),
        }
    return {"says": found}
