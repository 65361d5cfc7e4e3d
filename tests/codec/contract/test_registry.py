"""Codecs are found by id, and a bad configuration names its culprit."""

from __future__ import annotations

from typing import Any

import pytest

from flwr_caesar.codec import CodecError, get_codec, list_codecs
from flwr_caesar.codec.codecs.topk import TopKCodec

from ..entry_points import install
from .test_base import Delta


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        monkeypatch,
        test_delta=f"{Delta.__module__}:Delta",
        not_a_codec="json:dumps",
        not_there="flwr_caesar.no_such_module:Codec",
        dense="json:dumps",
    )


@pytest.mark.parametrize("codec_id", list_codecs())
def test_a_codec_is_its_configuration(codec_id: str) -> None:
    codec = get_codec(codec_id)
    assert codec.config["id"] == codec_id == codec.id
    assert get_codec(codec.config) == codec


def test_parameters_reach_the_codec() -> None:
    codec = get_codec({"id": "topk", "density": 0.5, "values": "float16"})
    assert codec == TopKCodec(density=0.5, values="float16", exact_below=1024)
    assert get_codec(codec.config) == codec
    assert get_codec({"id": "topk", "density": 1}) == TopKCodec(density=1.0)


@pytest.mark.parametrize("codec_id", list_codecs())
def test_a_whole_number_may_be_written_with_a_point(codec_id: str) -> None:
    """JSON has one kind of numbers, and docs/wire-format.md compares them by value."""
    codec = get_codec(codec_id)
    whole = {
        name: float(value) if type(value) is int else value
        for name, value in codec.config.items()
    }
    found = get_codec(whole)
    assert found == codec
    assert [*map(type, found.config.values())] == [*map(type, codec.config.values())]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("nonsense", "no codec 'nonsense'; installed are caesar_model"),
        ({"density": 1}, "needs a text 'id', not None"),
        ({"id": ["topk"]}, r"needs a text 'id', not \['topk'\]"),
        ({"id": "dense", "density": 0.1}, "dense: no parameter 'density'; it has none"),
        ({"id": "topk", "densty": 0.1}, "no parameter 'densty'; it has density, "),
        ({"id": "topk", "density": "0.1"}, "topk: density cannot be '0.1'"),
        ({"id": "topk", "density": True}, "topk: density cannot be True"),
        ({"id": "topk", "density": None}, "topk: density cannot be None"),
        ({"id": "topk", "density": float("nan")}, "topk: density cannot be nan"),
        ({"id": "topk", "density": 10**400}, "topk: density must be in"),
        ({"id": "topk", "density": 0}, "topk: density must be in"),
        ({"id": "topk", "values": 16}, "topk: values cannot be 16"),
        ({"id": "topk", "values": "float8"}, "topk: values must be one of float32"),
        ({"id": "topk", "values": ["float16"]}, "topk: values cannot be"),
        ({"id": "topk", "exact_below": 1.5}, "topk: exact_below cannot be 1.5"),
    ],
)
def test_the_culprit_is_named(config: Any, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        get_codec(config)


@pytest.mark.usefixtures("installed")
def test_a_third_partys_codec_is_found() -> None:
    assert "test-delta" in list_codecs()
    assert get_codec("test-delta") == Delta()
    assert get_codec("dense").id == "dense"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("codec_id", ["not-a-codec", "not-there"])
def test_a_broken_entry_point_is_named(codec_id: str) -> None:
    with pytest.raises(CodecError, match=codec_id):
        get_codec(codec_id)
