"""`flwr-caesar codec`: figures are of real frames, errors are one clear line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flwr_caesar.cli import main
from flwr_caesar.codec import get_codec, kernel, list_codecs
from flwr_caesar.codec_inputs import load_arrays
from flwr_caesar.plan.precision import upload_error

Rounds = list[dict[str, np.ndarray[Any, Any]]]


def call(*words: str) -> int:
    return main(["codec", *words])


@pytest.fixture
def rounds() -> Rounds:
    rng = np.random.default_rng(0)
    return [
        {
            "w": rng.standard_normal((60, 50)).astype(np.float32),
            "b": rng.standard_normal(9).astype(np.float32),
            "n": np.array(step),
        }
        for step in range(3)
    ]


@pytest.fixture
def files(tmp_path: Path, rounds: Rounds) -> list[str]:
    paths = []
    for i, arrays in enumerate(rounds):
        np.savez(tmp_path / f"{i}.npz", **arrays)  # type: ignore[arg-type]
        paths.append(str(tmp_path / f"{i}.npz"))
    return paths


def test_the_command_is_listed_and_explains_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    assert "  codec " in capsys.readouterr().out
    for words in ([], ["bench"]):
        with pytest.raises(SystemExit) as caught:
            call(*words, "--help")
        assert caught.value.code == 0
        assert f"flwr-caesar codec {' '.join(words)}".rstrip() in (
            capsys.readouterr().out
        )


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list_codecs()
    assert call("list", "--json") == 0
    configs = json.loads(capsys.readouterr().out)
    assert configs == [
        {"id": codec_id, **get_codec(codec_id).parameters} for codec_id in list_codecs()
    ]


def test_bench_json_is_of_real_frames(
    files: list[str], rounds: Rounds, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--codec", "topk", "--set", "density=0.1", "--set", "values=float16"]
    assert call("bench", *files, *options, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    codec = get_codec({"id": "topk", "density": 0.1, "values": "float16"})
    assert report["codec"] == codec.config
    state = None
    for arrays, got in zip(rounds, report["rounds"], strict=True):
        frame, state = codec.encode(arrays, state)
        decoded, _ = codec.decode(frame, state)
        assert got["bytes"] == len(frame)
        assert got["ratio"] == pytest.approx((4 * 3009 + 8) / len(frame))
        assert got["bits_per_param"] == pytest.approx(8 * len(frame) / 3010)
        error = sum(np.square(arrays[n] - decoded[n]).sum() for n in "wb")
        energy = sum(np.square(arrays[n]).sum() for n in "wb")
        assert got["nmse"] == pytest.approx(error / energy, rel=1e-4)
        assert got["max_error_over_bound"] is None
        assert got["encode_mb_s"] > 0
        assert got["decode_mb_s"] > 0
    sizes = [got["bytes"] for got in report["rounds"]]
    assert report["total"]["bytes"] == sum(sizes)
    assert sizes[1] < sizes[0]  # the table is sent once


FIGURES = {
    "bytes",
    "ratio",
    "bits_per_param",
    "nmse",
    "max_error_over_bound",
    "encode_mb_s",
    "decode_mb_s",
}


def test_what_a_strategy_sends_is_named_as_it_would_be_asked_for(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("bench", *files, "--as", "caesar") == 0
    name, _, told = capsys.readouterr().out.splitlines()[0].partition(": ")
    assert name == "caesar"
    codec = told.removesuffix(" with error feedback")
    assert codec != told
    sent = []
    for one in (["--as", "caesar"], ["--codec", codec, "--error-feedback"]):
        assert call("bench", *files, *one, "--json") == 0
        sent.append(json.loads(capsys.readouterr().out))
    assert sent[0]["codec"] == sent[1]["codec"]
    assert sent[0]["total"]["bytes"] == sent[1]["total"]["bytes"]


@pytest.mark.parametrize("codec_id", ["cast", "error_bounded"])
def test_a_bound_is_compared(
    codec_id: str, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("bench", *files, "--codec", codec_id, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert 0.5 < report["total"]["max_error_over_bound"] <= 1
    assert report["total"].keys() == FIGURES | {"nmse_of_sum"}
    for got in report["rounds"]:
        assert got.keys() == FIGURES | {"file"}


def test_error_feedback_sends_the_rest_later(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    steady = [files[0]] * 30
    sums = []
    for extra in ([], ["--error-feedback"]):
        assert call("bench", *steady, "--codec", "ternary", "--json", *extra) == 0
        sums.append(json.loads(capsys.readouterr().out)["total"]["nmse_of_sum"])
    assert sums[1] < 0.8 * sums[0]


def test_the_table_has_a_row_a_round_and_a_total(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("bench", *files, "--codec", "rotated", "--set", "bits=2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "rotated bits=2"
    labels = [line.split()[0] for line in lines[2:7]]
    assert labels == ["round", "1", "2", "3", "total"]
    assert len({len(line) for line in lines[2:7]}) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.npz", "--codec", "topk"], "missing.npz: No such file"),
        (["text.npz", "--codec", "topk"], "codec: text.npz: not an .npz file"),
        ([".", "--codec", "topk"], "not an .npz file"),
        (["objects.npz", "--codec", "topk"], "objects.npz"),
        (["complex.npz", "--codec", "topk"], "complex"),
        (["empty.npz", "--codec", "topk"], "no elements"),
        (["0.npz", "other.npz", "--codec", "topk"], "round 2"),
        (["0.npz", "--codec", "nope"], "no codec 'nope'"),
        (["0.npz", "--codec", "topk", "--set", "sparsity=1"], "sparsity"),
        (["0.npz", "--codec", "topk", "--set", "density"], "KEY=VALUE"),
        (["0.npz", "--codec", "topk", "--set", "density=high"], "density"),
        (["0.npz", "--codec", "topk", "--set", "density=2"], "density"),
        (["0.npz", "--codec", "topk", "--set", "id=dense"], "--codec"),
        (["nan.npz", "--codec", "dense"], "NaN"),
    ],
)
def test_errors_are_one_clear_line(
    words: list[str],
    message: str,
    files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.npz").write_text("hello")
    np.savez("objects.npz", a=np.array([object()]))
    np.savez("complex.npz", a=np.ones(3, complex))
    np.savez("empty.npz", a=np.ones(0, np.float32))
    np.savez("other.npz", a=np.ones(3, np.float32))
    np.savez("nan.npz", a=np.full(3, np.nan, np.float32))
    assert call("bench", *words) == 1
    streams = capsys.readouterr()
    assert streams.out == ""
    assert len(streams.err.splitlines()) == 1
    assert message in streams.err


def totals(text: str) -> dict[str, float]:
    """Return the bytes of each row of a table of several codecs."""
    head, *rows = text.split("\n\n")[0].splitlines()
    columns = len(head.split()) - 1
    cells = [row.rsplit(maxsplit=columns) for row in rows]
    return {row[0].strip(): float(row[1].replace(",", "")) for row in cells}


def test_several_codecs_are_one_table(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--codec", "topk density=0.1", "--as", "topk", "--codec", "dense"]
    assert call("bench", *files, *words) == 0
    found = totals(capsys.readouterr().out)
    assert list(found) == ["topk density=0.1", "topk", "dense"]
    # A model of 3,000 elements: the strategy keeps 40 %.
    assert found["topk density=0.1"] < 0.6 * found["topk"] < found["dense"]
    assert call("bench", *files, *words, "--json") == 0
    told = json.loads(capsys.readouterr().out)["codecs"]
    assert [one["error_feedback"] for one in told] == [False, True, False]
    assert told[1]["total"]["bytes"] == found["topk"]


def test_as_caesar_is_what_its_devices_send(
    files: list[str], rounds: Rounds, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("bench", *files, "--as", "caesar", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["error_feedback"]
    # Of the middle device.
    elements = sum(array.size for array in rounds[0].values())
    asked = math.log(told["codec"].pop("nmse"))
    assert asked == pytest.approx(math.log(upload_error(elements)), rel=0.05)
    own = {**get_codec("lattice").config, "exact_below": 0, "fine_below": 1024}
    assert (own | {"dead_zone": 0.5, "rank": 16}).items() >= told["codec"].items()
    assert call("bench", *files, "--as", "caesar rate=0.5", "--json") == 0
    rate = json.loads(capsys.readouterr().out)["codec"]["rate"]
    assert rate == pytest.approx(0.5, rel=0.05)


def test_a_strategy_that_sends_models_says_so(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("bench", *files, "--as", "pruning") == 0
    assert "pruning: sends whole models" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name a codec with --codec, a strategy with --as, or"),
        (["--as", "nope"], "no strategy 'nope'"),
        (["--as", "caesar rte=1"], "did you mean 'rate'"),
        (["--as", "caesar rate"], "expected KEY=VALUE"),
        (["--as", "caesar", "--set", "rate=-1"], "rate"),
    ],
)
def test_a_mistake_in_what_to_measure(
    files: list[str], words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("bench", *files, *words) == 1
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert says in printed


def test_bench_says_what_ran_the_loops(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("bench", *files, "--codec", "topk") == 0
    assert f"on this machine, by {kernel.in_use}." in capsys.readouterr().out


def test_all_codecs_are_drawn(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    picture = tmp_path / "codecs.png"
    assert call("bench", files[0], "--all", "--picture", str(picture)) == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    printed = capsys.readouterr().out
    named = {line.split()[0] for line in printed.splitlines() if line}
    assert set(list_codecs()) <= named
    assert call("bench", files[0], "--all", "--picture", "nowhere/x.png") == 1
    assert "--picture nowhere/x.png" in capsys.readouterr().err


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_checkpoint_of_torch_and_safetensors_are_read(
    tmp_path: Path, wrapped: bool
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from safetensors.torch import save_file

    state = {
        "w": torch.arange(12, dtype=torch.float32).reshape(3, 4),
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    }
    saved = {"epoch": 3, "state_dict": state} if wrapped else state
    torch.save(saved, tmp_path / "model.pt")
    save_file(state, tmp_path / "model.safetensors")
    for name in ("model.pt", "model.safetensors"):
        arrays = load_arrays(tmp_path / name)
        assert arrays.keys() == state.keys()
        np.testing.assert_array_equal(arrays["w"], state["w"].numpy())
        assert arrays["half"].dtype.name == "bfloat16"
        assert arrays["half"].astype(np.float32).tolist() == [1.5, -2.0]
    assert call("bench", str(tmp_path / "model.pt"), "--codec", "topk") == 0


def test_code_in_a_checkpoint_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.save({"w": Path("x")}, tmp_path / "evil.pt")  # a class, to be called
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 1}, tmp_path / "none.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08")
    for name, says in {
        "evil.pt": "does not read it as tensors",
        "list.pt": "holds a list, no state dict",
        "none.pt": "holds no tensors; its keys: epoch",
        "cut.pt": "does not read it as tensors",
        "cut.safetensors": "cut.safetensors: ",
        "gone.pt": "No such file",
    }.items():
        assert call("bench", str(tmp_path / name), "--codec", "topk") == 1
        printed = capsys.readouterr().err
        assert says in printed
        assert len(printed.splitlines()) == 1
