"""The codec in docs/codecs.md works as it stands."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from flwr_caesar.codec import get_codec, list_codecs
from flwr_caesar.codec.conformance.suite import check_codec

from .entry_points import install

PAGE = (Path(__file__).parents[2] / "docs" / "codecs.md").read_text(encoding="utf-8")


@pytest.fixture
def my_package(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    (source,) = [block for block in blocks if "class SignMean" in block]
    point = re.search(r'^(example-signs) = "(.*?)"$', PAGE, re.M)
    assert point is not None
    module = types.ModuleType("my_package.signs")
    monkeypatch.setitem(sys.modules, "my_package", types.ModuleType("my_package"))
    monkeypatch.setitem(sys.modules, "my_package.signs", module)
    exec(compile(source, "docs/codecs.md", "exec"), module.__dict__)
    install(monkeypatch, **{point[1]: point[2]})


@pytest.mark.usefixtures("my_package")
def test_the_example_conforms() -> None:
    check_codec(get_codec({"id": "example-signs", "exact_below": 64}))


@pytest.mark.usefixtures("my_package")
def test_the_example_sends_a_bit_per_element() -> None:
    x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    codec = get_codec("example-signs")
    frame, _ = codec.encode({"x": x})
    assert len(frame) < 100_000 / 8 + 300
    decoded, _ = codec.decode(frame)
    np.testing.assert_allclose(decoded["x"], np.sign(x) * np.abs(x).mean(), rtol=1e-6)


def test_the_page_lists_our_codecs() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.M)) - set(
        re.findall(r"^\| `(check_\w+)`", PAGE, re.M)
    )
    assert listed == set(list_codecs())


def test_the_page_states_the_defaults() -> None:
    text = PAGE.split("## Parameters")[1].split("\n## ")[0]
    entries = re.findall(r"^- `(\w+)`: (.*?)(?=^- |\Z)", text, re.M | re.S)
    described = {
        codec_id: dict(
            re.findall(r"\*\*(\w+)\*\*\s+`?([^\s,;`]+?)[`,;.]*(?=\s)", entry)
        )
        for codec_id, entry in entries
    }
    for codec_id in list_codecs():
        parameters = get_codec(codec_id).parameters
        own = {k: v for k, v in parameters.items() if k != "exact_below"}
        stated = described.get(codec_id, {})
        assert {k: json.loads(v) for k, v in stated.items()} == own
