"""What a device that reports less than everything is asked for instead."""

from __future__ import annotations

from dataclasses import replace
from logging import WARNING

from flwr.app import ArrayRecord

from flwr_caesar.codec import Codec, CodecError, Layout, get_codec, inspect_frame
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.contract.layout import Arrays
from flwr_caesar.flower import log
from flwr_caesar.frozen import frozen
from flwr_caesar.plan.by_size import by_size
from flwr_caesar.sync.protocol import DownloadHeader
from flwr_caesar.sync.state import UPDATE_PAYLOAD, Version
from flwr_caesar.transport import Abilities, frame_to_record, record_to_frame

from .caesar_lattice import FEW
from .method import ServerMethod
from .phase import Device, DevicePlan

_FALLBACKS = ("lattice", "topk")


class CannotTakePartError(CodecError):
    """A method needs of a device what it does not have."""


def fitted_plan(
    plan: DevicePlan, can: Abilities, method: ServerMethod, layout: Layout | None
) -> DevicePlan:
    """Return a plan within what a device can.

    An upload by a codec that it lacks becomes one by ``lattice``, else by ``topk``,
    where the device keeps what they leave out, and an exact one elsewhere.

    Parameters
    ----------
    plan : DevicePlan
        For a device that can everything.
    can : Abilities
        What this one can.
    method : ServerMethod
        Whose plan it is.
    layout : Layout, optional
        Tensors of the model.

    Raises
    ------
    CannotTakePartError
        If the method needs a part that the device does not have.
    """
    if plan.part and plan.part not in can.parts:
        raise CannotTakePartError(f"it has no part {plan.part!r}")
    if plan.upload.id in can.codecs:
        return plan
    upload = get_codec("dense")
    if method.error_feedback and method.payload == UPDATE_PAYLOAD:
        known = [name for name in _FALLBACKS if name in can.codecs]
        upload = _lossy(known[0], layout) if known else upload
    return replace(plan, upload=upload, use_memory=False)


@frozen
class Fitted:
    """What is asked of a device that may not have everything.

    Parameters
    ----------
    device : Device
        With the header that goes with it.
    plan : DevicePlan
        What it is to do.
    whole : ArrayRecord, optional
        The whole model, where the device does not read what the downlink has for it.
    """

    device: Device
    plan: DevicePlan
    whole: ArrayRecord | None = None


class Fitting:
    """Fits what a method plans to what each device can.

    Parameters
    ----------
    method : ServerMethod
        The method.
    """

    def __init__(self, method: ServerMethod) -> None:
        self._method = method
        self._target: Version | None = None
        self._codecs: dict[int, tuple[ArrayRecord, str]] = {}
        self._whole: dict[bytes, ArrayRecord] = {}

    def fit(
        self,
        device: Device,
        plan: DevicePlan,
        layout: Layout | None,
        published: Arrays,
    ) -> Fitted | None:
        """Return what to ask of a device; `None`, with a log line, for nothing.

        Parameters
        ----------
        device : Device
            Whose header says what it holds.
        plan : DevicePlan
            For a device that can everything.
        layout : Layout, optional
            Tensors of the model.
        published : mapping of str to ndarray
            The model as devices hold it.
        """
        can = device.can
        if can is None:
            return Fitted(device, plan)
        if self._target != device.header.target:
            self._target, self._codecs = device.header.target, {}
        try:
            plan = fitted_plan(plan, can, self._method, layout)
            if self._reads(device, can):
                return Fitted(device, plan)
            whole = self._exact(device.header, published)
        except CannotTakePartError as err:
            log(WARNING, "Node %d is not asked: %s", device.node_id, err)
            return None
        header = replace(device.header, base=None)
        return Fitted(replace(device, header=header), plan, whole)

    def _reads(self, device: Device, can: Abilities) -> bool:
        """Whether a device reads what the downlink has for it."""
        header, downlink = device.header, self._method.downlink
        if header.base == header.target:
            return True
        if downlink.part and downlink.part not in can.parts:
            return False
        record = downlink.frame(device.node_id, header)
        # Devices share frames, and a large one is looked at only once.
        if id(record) not in self._codecs:
            codec = inspect_frame(record_to_frame(record)).config["id"]
            self._codecs[id(record)] = record, codec
        return self._codecs[id(record)][1] in can.codecs

    def _exact(self, header: DownloadHeader, published: Arrays) -> ArrayRecord:
        """Return an exact frame of the whole model; one object for all devices."""
        digest = header.target[1]
        if digest not in self._whole:
            if self._method.downlink.exact and model_digest(published) != digest:
                raise CannotTakePartError("it does not read how models are published")
            frame, _ = get_codec("dense").encode(published, finite=False)
            self._whole = {digest: frame_to_record(frame)}
        return self._whole[digest]


def _lossy(name: str, layout: Layout | None) -> Codec:
    elements = layout.num_params if layout else 0
    if name == "topk":
        density = by_size(elements, small=0.4, usual=0.1)
        return get_codec({"id": name, "density": density, "values": "float16"})
    rate = by_size(elements, small=3.0, usual=0.3)
    sizes = {"exact_below": 0, "fine_below": 1024}
    return get_codec({"id": name, "rate": rate, "compact": elements >= FEW, **sizes})
