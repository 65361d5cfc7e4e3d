"""The files under conf/data and conf/model say what the code accepts."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from flwr_caesar.tasks import DataConfig

CONF = Path(__file__).parents[2] / "conf"
DATA = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


def compose(data: str, model: str):
    tree = OmegaConf.create(
        {
            "data": OmegaConf.load(CONF / "data" / f"{data}.yaml"),
            "model": OmegaConf.load(CONF / "model" / f"{model}.yaml"),
        }
    )
    return OmegaConf.to_container(tree, resolve=True)


@pytest.mark.parametrize("data", DATA)
def test_every_data_file_is_a_valid_configuration(data):
    assert DataConfig.of(compose(data, "cnn")["data"]).name == data


@pytest.mark.parametrize("model", sorted({*MODELS} - {"llama_lora"}))  # test_lora.py
def test_every_model_file_builds_for_its_data(model):
    pytest.importorskip("torch")
    if model.startswith("resnet") and find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    from flwr_caesar.tasks.models import build_model

    header = (CONF / "model" / f"{model}.yaml").read_text()
    config = compose(re.search(r"data=(\w+)", header)[1], model)
    last = list(build_model(config["model"], seed=0).parameters())[-1]
    assert len(last) == config["data"]["num_classes"]


@pytest.mark.parametrize(
    "path",
    sorted([*CONF.glob("data/*.yaml"), *CONF.glob("model/*.yaml")]),
    ids=lambda p: p.stem,
)
def test_every_file_says_how_to_use_it_and_every_knob_what_it_does(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert any(f"{path.parent.name}={path.stem}" in line for line in lines)
    knobs = [line for line in lines if ":" in line and not line.startswith("#")]
    groups = ("name:", "partition:")
    assert [k for k in knobs if "  # " not in k and not k.startswith(groups)] == []
