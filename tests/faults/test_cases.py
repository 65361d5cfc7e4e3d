"""The harness finds the cases of all methods, and reads off them what the laws need."""

from __future__ import annotations

import pytest
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.faults.app import SIZES, initial_model
from flwr_caesar.faults.cases import FaultCase, all_cases
from flwr_caesar.methods.registry import _OURS as OURS
from flwr_caesar.strategies import TopK, Uncompressed
from flwr_caesar.sync.sources import Sources
from flwr_caesar.transport import record_to_arrays

from .known import KNOWN


def test_what_is_known_is_known_of_every_case_of_ours():
    ours = {name for name, case in all_cases().items() if case.strategy in OURS}
    assert ours == KNOWN.keys()


@pytest.mark.parametrize("name", KNOWN)
def test_what_the_laws_need_is_read_off_the_method(name, tmp_path):
    case, known = all_cases()[name], KNOWN[name]
    method = case.method()
    assert method.uniform_weights == known.uniform
    assert case.takes_every_reply() == (not known.has_control)
    model = dict(method.downlink.begin(record_to_arrays(initial_model())))
    finished = method.finish(model)
    assert any(finished[n] is not a for n, a in model.items()) == known.finishes
    built = case.build(
        FedAvg(),
        devices=10,
        checkpoint=tmp_path,
        on_record=lambda record: None,
        sources=Sources(),
    )
    room = built.method.upload_memory
    assert room == known.remembers * 60 * sum(SIZES.values())


def test_a_room_for_memories_that_a_case_names_stays(tmp_path):
    case = FaultCase("error_bounded", {"rel": 0.01, "upload_memory": 5})
    options = {"devices": 10, "checkpoint": tmp_path, "sources": Sources()}
    built = case.build(FedAvg(), on_record=lambda record: None, **options)
    assert built.method.upload_memory == 5


def test_plain_arrays_have_no_laws():
    with pytest.raises(ValueError, match="plain sends plain arrays"):
        FaultCase("plain", factory=Uncompressed).method()


def test_a_factory_of_something_else_is_refused():
    case = FaultCase("other", factory=lambda inner, **_: inner)
    with pytest.raises(TypeError, match="other makes a FedAvg, not a Compressed"):
        case.method()


def test_a_factory_is_called_with_the_settings_of_its_case():
    method = FaultCase("own", {"density": 0.25}, factory=TopK).method()
    assert method.upload.config["density"] == 0.25
