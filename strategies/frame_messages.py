"""Messages that carry frames: how a request is packed, and what a reply may hold."""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from flwr_caesar.codec import CodecError, Layout
from flwr_caesar.flower import arrays_in, configs_in
from flwr_caesar.sync.protocol import DECLINED, UploadHeader, device_id
from flwr_caesar.transport import (
    DeviceReport,
    Plan,
    exact_record,
    plain_record,
    record_nbytes,
    with_note,
)

from .exchange import NotNowError, most_frame_bytes, others
from .method import ServerMethod
from .phase import Device, DevicePlan, Phase, Request

NO_MOD = (
    "the device runs without compression_mod, or with that of an older flwr-caesar, or "
    "behind a mod that reads arrays: put it first in its app, "
    "ClientApp(mods=[compression_mod])"
)


def packed(
    content: RecordDict,
    key: str,
    device: Device,
    plan: DevicePlan,
    method: ServerMethod,
    *,
    is_train: bool,
    max_residual_age: int,
    whole: ArrayRecord | None = None,
) -> RecordDict:
    """Return what a device is sent in place of a message of the inner strategy.

    Parameters
    ----------
    content : RecordDict
        Of the inner strategy; not changed.
    key : str
        Which of its ArrayRecords is the model.
    device : Device
        Who is asked, with the header of the request.
    plan : DevicePlan
        For what.
    method : ServerMethod
        Of which the plan is.
    is_train : bool
        Whether an update is asked for.
    max_residual_age : int
        See `WrapperOptions`.
    whole : ArrayRecord, optional
        The whole model, for a device that has not what the downlink needs.
    """
    header, downlink = device.header, method.downlink
    has_part = device.can is None or downlink.part in device.can.parts
    made = content.copy()
    for name, record in others(content, key).items():
        made[name] = exact_record(record)
    if header.base == header.target and not downlink.again(device.node_id):
        del made[key]
    else:
        made[key] = whole or downlink.frame(device.node_id, header)
    for name, record in plan.records.items():
        if name in made:
            raise ValueError(
                f"the app sends a record {name!r}, which is what the strategy names "
                "its own: give it another name"
            )
        made[name] = record
    if plan.config:
        for name, config in configs_in(content).items():
            made[name] = ConfigRecord({**config, **plan.config})
    sent = Plan(
        record=key,
        upload=plan.upload.config if is_train else {},
        error_feedback=method.error_feedback and is_train,
        max_residual_age=max_residual_age,
        payload=method.payload,
        exact=downlink.exact,
        call_app=plan.call_app,
        part=plan.part or (downlink.part if has_part else ""),
        settings=plan.settings.to_dict(),
        start=downlink.recipe if header.base == downlink.newcomer else {},
        ask_labels=plan.ask_labels,
    )
    return with_note(made, sent.note(header))


def sender_of(message: Message) -> str:
    """Return which device a reply says that it is of; empty if it does not."""
    try:
        return device_id(DeviceReport.header(message.content).token)
    except (CodecError, ValueError):
        return ""


def upload_key(phase: Phase, request: Request, content: RecordDict) -> str:
    """Return which ArrayRecord of a reply is the upload; empty if none is asked.

    Raises
    ------
    CodecError
        If that cannot be told.
    """
    names = list(arrays_in(content))
    if not phase.is_train or not names:
        return ""
    if len(names) == 1:
        return names[0]
    if request.key not in names:
        raise CodecError(
            f"reply has {len(names)} ArrayRecords, and none is named "
            f"{request.key!r} as the model was"
        )
    return request.key


def plain_others(
    content: RecordDict, key: str, max_bytes: int
) -> dict[str, ArrayRecord]:
    """Return a reply's ArrayRecords but the upload, as plain arrays.

    Raises
    ------
    CodecError
        If they are damaged, or have more than `max_bytes`.
    """
    plain = {}
    for name, record in others(content, key).items():
        plain[name] = plain_record(record, max_bytes=max_bytes)
        max_bytes = max(max_bytes - record_nbytes(plain[name]), 0)
    return plain


def require_frame_size(record: ArrayRecord, layout: Layout) -> None:
    """Refuse an upload that is far larger than its model.

    Raises
    ------
    CodecError
        With both sizes.
    """
    size, most = record_nbytes(record), most_frame_bytes(layout)
    if size > most:
        raise CodecError(
            f"the upload has {size} bytes, {most} are the most of this model"
        )


def not_now(header: UploadHeader, reason: str, report: DeviceReport) -> NotNowError:
    """Return what a reply says that carries nothing to use, in the device's words."""
    told = report.telemetry
    if header.status == DECLINED and told is not None and told.policy:
        reason = f"{reason}: {told.policy.removeprefix('declined: ')}"
    return NotNowError(reason, told)
