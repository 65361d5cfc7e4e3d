from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from flwr_caesar.cli import main
from flwr_caesar.codec import kernel
from flwr_caesar.deploy.board import Board, read_board
from flwr_caesar.deploy.certificate import Certificate
from flwr_caesar.deploy.device_key import make_key
from flwr_caesar.deploy.doctor.device import check_key_file, check_running
from flwr_caesar.deploy.doctor.finding import Finding, Level, exit_code, ok
from flwr_caesar.deploy.doctor.link import check_idle, judge_certificate, judge_clock
from flwr_caesar.deploy.doctor.machine import check_identity, check_l4t, check_swap
from flwr_caesar.deploy.doctor.software import (
    Torch,
    check_codec,
    check_flower,
    check_jtop,
    check_python,
    check_torch,
)
from flwr_caesar.deploy.doctor.storage import check_free, check_wear, medium_of
from flwr_caesar.deploy.doctor.table import to_json, to_table
from flwr_caesar.deploy.metered import Metered, Window
from flwr_caesar.deploy.node_file import NodeFile
from flwr_caesar.deploy.node_status import load_status, save_status
from flwr_caesar.deploy.probe import Probed, Standing

from . import boards

ORIN = Board("NVIDIA Jetson Orin Nano", "tegra234", "36.4.3")
PC = Board()


def failed(finding: Finding, words: str) -> None:
    assert finding.level is Level.FAILURE
    assert words in finding.text
    assert finding.fix


def warned(finding: Finding, words: str) -> None:
    assert finding.level is Level.WARNING
    assert words in finding.text
    assert finding.fix


def fine(finding: Finding, words: str = "") -> None:
    assert finding.level is Level.OK, finding
    assert words in finding.text


def test_exit_codes_table_and_json() -> None:
    well = ok("disk", "much")
    warn = Finding("swap", Level.WARNING, "none", "add some")
    fail = Finding("key", Level.FAILURE, "missing", "make one")
    assert [exit_code(f) for f in ([well], [well, warn], [warn, fail])] == [0, 1, 2]
    table = to_table([well, warn, fail], width=60)
    assert "ok    disk  much" in table
    assert "FAIL  key   missing" in table
    assert "→ make one" in table
    assert table.endswith("3 checks: 1 failed, 1 to look at")
    assert to_table([well]).endswith("1 checks, all well")
    told = json.loads(to_json([fail]))
    assert told["exit"] == 2
    assert told["findings"][0] == {
        "check": "key",
        "level": "failure",
        "text": "missing",
        "fix": "make one",
    }


def test_python_and_flower() -> None:
    fine(check_python(), "3.")
    fine(check_codec(), kernel.in_use)
    failed(check_python((3, 10, 12)), "Python 3.10.12: Flower needs 3.11")
    assert check_flower().level is not Level.FAILURE
    fine(check_flower("1.41.0"), "1.41.0")
    fine(check_flower("1.42.3"), "1.42.3")
    warned(check_flower("1.43.0.dev20261101"), "tried with 1.41 to 1.42")
    for other in ("1.40.2", "2.0.0", "0.9", "unknown"):
        failed(check_flower(other), f"Flower {other} is installed")


@pytest.mark.parametrize(
    ("built_for", "device", "gpu", "level"),
    [
        (("sm_80", "sm_87"), "sm_87", "required", Level.OK),
        (("sm_80",), "sm_87", "required", Level.OK),  # the same generation
        (("sm_50", "sm_90a"), "sm_87", "required", Level.FAILURE),
        (("sm_50", "sm_90"), "sm_87", "preferred", Level.WARNING),
        (("compute_80",), "sm_110", "required", Level.OK),
        (("sm_90",), "sm_110", "required", Level.FAILURE),
        (("sm_100",), "sm_110", "required", Level.FAILURE),
        ((), "", "never", Level.OK),
        ((), "", "required", Level.FAILURE),
        (("sm_87",), "", "preferred", Level.WARNING),  # an Orin whose GPU is not seen
    ],
)
def test_torch_on_orin(
    built_for: tuple[str, ...], device: str, gpu: str, level: Level
) -> None:
    finding = check_torch(Torch("2.13.0", built_for, device), ORIN, gpu=gpu)
    assert finding.level is level
    if level is not Level.OK:
        assert "training would run on the CPU" in finding.text


def test_torch_elsewhere() -> None:
    fine(check_torch(Torch("2.13.0"), PC, gpu="preferred"), "no GPU here")
    failed(check_torch(Torch("2.13.0"), PC, gpu="required"), "sees no GPU")
    fine(check_torch(Torch(), PC, gpu="preferred"), "not installed")
    failed(check_torch(Torch(), PC, gpu="required"), "cannot be imported")
    orin = check_torch(Torch("2.13.0", ("sm_90",)), ORIN, gpu="preferred")
    warned(orin, "torch 2.13.0 has no CUDA for sm_87 (it has sm_90)")


def test_jtop(tmp_path: Path) -> None:
    fine(check_jtop(tmp_path), "no service")
    boards.put(tmp_path, "run/jtop.sock", "")
    fine(check_jtop(tmp_path, "True\n"))
    mismatch = "JtopException: Mismatch version jtop service: [4.2] and client: [4.3]"
    warned(check_jtop(tmp_path, mismatch), "does not fit the version")
    warned(
        check_jtop(tmp_path, "No module named 'jtop'"), "its client is not installed"
    )


def test_boards(tmp_path: Path) -> None:
    orin = read_board(boards.orin(tmp_path / "orin"))
    fine(check_l4t(orin), "L4T 36.4.3, JetPack 6.2")
    xavier = read_board(boards.xavier(tmp_path / "xavier"))
    warned(check_l4t(xavier), "JetPack 5 and older")
    fine(check_l4t(PC), "no Jetson")
    warned(check_l4t(replace(orin, l4t="")), "cannot be read")


@pytest.mark.parametrize(
    ("memory_gib", "swap_gib", "device", "words"),
    [
        (8, 0, "", "no swap"),
        (8, 4, "/dev/zram0", "swap in memory only (zram)"),
        (8, 8, "/dev/nvme0n1p2", ""),
        (64, 0, "", ""),
    ],
)
def test_swap(
    tmp_path: Path, memory_gib: int, swap_gib: int, device: str, words: str
) -> None:
    text = f"MemTotal: {memory_gib << 20} kB\nSwapTotal: {swap_gib << 20} kB\n"
    boards.put(tmp_path, "proc/meminfo", text)
    swaps = f"{device} partition 1 0 -2\n" if device else ""
    boards.put(tmp_path, "proc/swaps", f"Filename Type Size Used Priority\n{swaps}")
    finding = check_swap(tmp_path)
    warned(finding, words) if words else fine(finding)


def test_a_machine_without_an_identity(tmp_path: Path) -> None:
    failed(check_identity(tmp_path), "neither a serial number nor a machine id")
    boards.put(tmp_path, "etc/machine-id", "uninitialized\n")
    failed(check_identity(tmp_path), "before its first boot")
    boards.put(tmp_path, "etc/machine-id", "3f1c\n")
    fine(check_identity(tmp_path), "machine id")
    boards.put(tmp_path, "proc/device-tree/serial-number", "1424321001\0")
    fine(check_identity(tmp_path), "serial number")


def test_free_disk_is_twice_the_state(tmp_path: Path) -> None:
    state = tmp_path / "state"
    fine(check_free(state))  # not there yet: what is free above it
    _write_state(state, 150 * 10**6)
    failed(check_free(state, free=299 * 10**6), "299 MB are free")
    fine(check_free(state, free=301 * 10**6), "301 MB free")
    failed(check_free(tmp_path, free=10**8), "it needs 200 MB")


def test_an_sd_card_wears_out_under_the_state(tmp_path: Path) -> None:
    state = tmp_path / "state"
    _write_state(state, 88 * 10**6)
    root = tmp_path / "root"
    device = state.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    partition = root / "sys/devices/mmc/block/mmcblk1/mmcblk1p1"
    partition.mkdir(parents=True)
    boards.put(root, "sys/devices/mmc/block/mmcblk1/device/type", "SD\n")
    (root / "sys/dev/block").mkdir(parents=True)
    (root / f"sys/dev/block/{number}").symlink_to(partition)
    assert medium_of(state, root) == "SD"
    warned(
        check_wear(state, root),
        "State is on an SD card; 88 MB a round, 100 rounds a day: 3.2 TB a year",
    )
    lineage = state / "0123456789abcdef"
    for name, size in (("memory-0", 22), ("change-0", 10), ("change-1", 4)):
        (lineage / f"{name}.safetensors").write_bytes(b"")
        os.truncate(lineage / f"{name}.safetensors", size * 10**6)
    os.truncate(lineage / "model.safetensors", 0)
    (lineage / "model.safetensors").rename(lineage / "model-0.safetensors")
    os.truncate(lineage / "model-0.safetensors", 43 * 10**6)
    # The residual each time, and of the model one file of changes.
    warned(check_wear(state, root), "29 MB a round")
    boards.put(root, "sys/devices/mmc/block/mmcblk1/device/type", "MMC\n")
    fine(check_wear(state, root), "eMMC")
    assert medium_of(state, tmp_path / "nowhere") == ""


def test_idle_bytes_of_a_metered_link(tmp_path: Path) -> None:
    warned(check_idle(Metered(), tmp_path), "about 1.4 GB a month on this metered")
    night = Metered(windows=(Window.parse("02:00-04:00"),))
    fine(check_idle(night, tmp_path), "about 0.1 GB a month")
    tight = replace(night, bytes_a_month=10**8)
    warned(check_idle(tight, tmp_path), "0.1 GB a month")
    fine(check_idle(None, tmp_path), "not metered")
    route = "Iface Destination Gateway Flags RefCnt Use Metric Mask\n{} 0 1 3 0 0 0 0\n"
    for name, check in (("wwan0", warned), ("eth0", fine)):
        row = route.format(name).replace(" 0 1", " 00000000 01").rstrip()
        boards.put(tmp_path, "proc/net/route", f"{row[:-1]}00000000\n")
        check(check_idle(None, tmp_path), name)


def test_a_certificate_that_ends_soon() -> None:
    now = time.time()
    end = datetime.now(UTC) + timedelta(days=12, minutes=5)
    shown = Certificate(("fleet.example",), "", end - timedelta(days=90), end)
    (finding,) = judge_certificate(shown, now)
    warned(finding, "Certificate expires in 12 days")
    (finding,) = judge_certificate(
        replace(shown, not_after=end.replace(year=2040)), now
    )
    fine(finding, "fleet.example")
    assert judge_certificate(None, now) == []


@pytest.mark.parametrize(
    ("skew", "level", "words"),
    [
        (0.4, Level.OK, "within a second"),
        (3.0, Level.WARNING, "Clock is 3 s ahead of the server"),
        (-20.0, Level.OK, "20 s behind the server"),
        (-120.0, Level.WARNING, "Clock is 2 min behind the server"),
    ],
)
def test_a_clock_that_drifts(skew: float, level: Level, words: str) -> None:
    (finding,) = judge_clock(Probed(standing=Standing.ENROLLED, skew=skew))
    assert finding.level is level
    assert words in finding.text


def test_a_key_that_others_can_read(tmp_path: Path) -> None:
    key = tmp_path / "device.key"
    (finding,) = check_key_file(key)
    failed(finding, "cannot be read")
    make_key(key)
    (finding,) = check_key_file(key)
    fine(finding, "mode 0600")
    key.chmod(0o644)
    (finding,) = check_key_file(key)
    failed(finding, "can be read by others (mode 0644)")
    assert f"chmod 600 {key}" in finding.fix


def test_keys_that_flower_does_not_read(tmp_path: Path) -> None:
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    pkcs8, open_ssh = (
        serialization.PrivateFormat.PKCS8,
        serialization.PrivateFormat.OpenSSH,
    )
    edwards = ed25519.Ed25519PrivateKey.generate()
    keys = {
        "not in OpenSSH format": ec.generate_private_key(ec.SECP384R1()).private_bytes(
            pem, pkcs8, plain
        ),
        "is an Ed25519 key; Flower takes ECDSA only": edwards.private_bytes(
            pem, open_ssh, plain
        ),
        "without a passphrase": b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
    }
    for words, data in keys.items():
        file = tmp_path / "key"
        file.write_bytes(data)
        (finding,) = check_key_file(file)
        failed(finding, words)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen")
def test_a_key_with_a_passphrase_is_told_how_to_lose_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "secret", "-f", file],
        check=True,
    )
    (finding,) = check_key_file(file)
    failed(finding, f"`ssh-keygen -p -N '' -f {file}` takes it off")
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "secret", "-N", "", "-f", file], check=True
    )
    (finding,) = check_key_file(file)
    fine(finding)


def test_what_the_node_said_last(tmp_path: Path) -> None:
    node = _node(tmp_path)
    now = time.time()
    (finding,) = check_running(node, tmp_path, now)
    warned(finding, "No node runs here")
    save_status(node.state_dir, "Online: jetson-07 at fleet", now - 300)
    (finding,) = check_running(node, tmp_path, now)
    warned(finding, "its last words: Online")
    status = load_status(node.state_dir)
    assert status is not None
    boards.put(tmp_path, f"proc/{status.pid}/cmdline", "python\0flwr-caesar\0node\0")
    (finding,) = check_running(node, tmp_path, now)
    fine(finding, "Online: jetson-07 at fleet (5 min ago)")
    save_status(node.state_dir, "This key is already online; waiting 43 s", now)
    (finding,) = check_running(node, tmp_path, now)
    warned(finding, "already online; waiting 43 s (0 s ago)")
    (node.state_dir / "node.json").write_text("{")
    with socket.socket() as other:
        other.bind(("127.0.0.1", node.port))
        other.listen()
        (finding,) = check_running(node, tmp_path, now)
    failed(finding, f"Port {node.port} of this machine is taken")


def test_the_command_on_a_device_that_is_not_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", str(tmp_path / "node.toml"), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    checks = {finding["check"]: finding for finding in told["findings"]}
    assert checks["Python"]["level"] == "ok"
    assert "does not exist" in checks["node.toml"]["text"]
    (tmp_path / "node.toml").write_text("[server]\naddress = 3\n")
    assert main(["doctor", str(tmp_path / "node.toml")]) == 2
    assert "[device]" in capsys.readouterr().out


def _write_state(folder: Path, size: int) -> None:
    lineage = folder / "0123456789abcdef"
    lineage.mkdir(parents=True)
    with (lineage / "model.safetensors").open("wb") as file:
        file.truncate(size)


def _node(folder: Path) -> NodeFile:
    (folder / "state").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return NodeFile(
        address="fleet.example:8443",
        ca=folder / "ca.crt",
        name="jetson-07",
        key=folder / "device.key",
        partition_id=0,
        num_partitions=1,
        state_dir=folder / "state",
        port=port,
    )
