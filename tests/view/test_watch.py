"""The page of a run, in a real browser where there is one."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from starlette.testclient import TestClient

from flwr_caesar import cli
from flwr_caesar.runner.folder import RunFolder
from flwr_caesar.runner.superlink import free_port
from flwr_caesar.view import watch_command
from flwr_caesar.view.server import application
from flwr_caesar.view.watch_command import source_of

from .browser import Browser, found
from .runs import HOSTILE, add_round, write_run

HOST = "http://127.0.0.1"


def client(run: Path) -> TestClient:
    return TestClient(application(source_of(str(run))), base_url=HOST)


def test_only_this_machine_and_nothing_foreign(tmp_path: Path) -> None:
    write_run(tmp_path)
    page = client(tmp_path)
    answer = page.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for path in ("/page.css", "/page.js", "/chart.js"):
        assert page.get(path).status_code == 200
        assert "innerHTML" not in page.get(path).text
    assert page.get("/data", headers={"Host": "evil.example"}).status_code == 400
    assert page.post("/data").status_code == 405
    assert page.get("/../pyproject.toml").status_code == 404


def test_it_listens_on_loopback_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {}
    monkeypatch.setattr(
        watch_command.uvicorn, "run", lambda app, **kw: given.update(kw)
    )
    assert cli.main(["watch", str(tmp_path), "--port", "18999"]) == 0
    assert given["host"] == "127.0.0.1"
    assert given["port"] == 18999
    assert "http://127.0.0.1:18999 shows" in capsys.readouterr().out
    assert cli.main(["watch", str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_data_is_sent_when_it_is_new(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    page = client(tmp_path)
    answer = page.get("/data")
    assert "<" not in answer.text
    told = answer.json()
    assert told["devices"][-1]["reason"].startswith("<img")
    assert page.get("/data", params={"known": told["stamp"]}).status_code == 204
    add_round(folder, 4)
    assert page.get("/data", params={"known": told["stamp"]}).status_code == 200


def test_a_sweep_has_a_page_for_each_run(tmp_path: Path) -> None:
    for number, strategy in enumerate(["fedavg", "caesar"]):
        run = tmp_path / f"{number}-{strategy}"
        write_run(run, strategy=strategy)
        (run / "overrides.yaml").write_text("[]\n", encoding="utf-8")
    page = client(tmp_path)
    assert page.get("/data").json()["runs"] == ["0-fedavg", "1-caesar"]
    assert page.get("/data", params={"run": "1-caesar"}).json()["strategy"] == "caesar"
    # A name that is no run of it is the first one, not a way out.
    assert page.get("/data", params={"run": "../.."}).json()["strategy"] == "fedavg"


@contextlib.contextmanager
def served(run: str) -> Iterator[str]:
    port = free_port()
    config = uvicorn.Config(
        application(source_of(run)), host="127.0.0.1", port=port, log_level="error"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"{HOST}:{port}/"
    finally:
        server.should_exit = True
        thread.join()


def test_the_page_of_another_machine_is_shown_here(tmp_path: Path) -> None:
    write_run(tmp_path)
    with served(str(tmp_path)) as url:
        page = TestClient(application(source_of(url)), base_url=HOST)
        told = page.get("/data").json()
        assert told["strategy"] == "caesar"
        assert page.get("/data", params={"known": told["stamp"]}).status_code == 204
    assert "refused" in page.get("/data").json()["unreachable"].lower()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests: it takes seconds to start."""
    found()
    made = Browser(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


def state_is(browser: Browser, text: str) -> None:
    browser.until(f"document.getElementById('state').textContent === '{text}'")


def test_a_run_is_seen_while_it_goes_on(browser: Browser, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    with served(str(tmp_path)) as url:
        browser.open(url)
        state_is(browser, "running")
        tiles = browser.ask("document.getElementById('tiles').innerText")
        for part in ("3 of 5", "70.00 %", "9 kB", "18 kB", "17.8"):
            assert part in tiles
        told = browser.ask("document.getElementById('phase').textContent")
        assert told.startswith("Round 4, train: 1 of 3 devices have answered, 2 are")
        charts = "document.querySelectorAll('svg[role=img]').length"
        assert browser.ask(charts) == 3
        # Nothing that a device says is markup, and none of it has run.
        assert HOSTILE[:20] in browser.ask("document.body.innerText")
        assert browser.ask("document.querySelectorAll('img').length") == 0
        assert browser.ask("document.title").startswith("caesar: ")
        add_round(folder, 4)
        browser.until("document.getElementById('tiles').innerText.includes('4 of 5')")
        folder.finish({"w": np.zeros(1, np.float32)})
        state_is(browser, "finished")


def test_it_is_used_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path)
    with served(str(tmp_path)) as url:
        browser.open(url)
        state_is(browser, "running")
        browser.press("Tab", 9)
        assert browser.ask("document.activeElement.className") == "skip"
        browser.ask("document.getElementById('search').focus()")
        browser.type("tx2")
        count = "document.getElementById('count').textContent"
        browser.until(f"{count} === '2 of 3 devices'")
        sort = "document.querySelector('th[data-name=refusals]')"
        browser.ask(f"{sort}.querySelector('button').focus()")
        browser.press("Enter", 13)
        browser.until(f"{sort}.getAttribute('aria-sort') === 'descending'")
        first = "document.querySelector('#devices tbody tr').cells[0].textContent"
        assert browser.ask(first) == "3"
        # The focus stays where it was, though the head was drawn anew.
        focus = "document.activeElement.closest('th').dataset.name"
        assert browser.ask(focus) == "refusals"


def test_everything_has_a_name_for_who_does_not_see_it(
    browser: Browser, tmp_path: Path
) -> None:
    write_run(tmp_path)
    with served(str(tmp_path)) as url:
        browser.open(url)
        state_is(browser, "running")
        browser.call("Accessibility.enable")
        nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = ("button", "searchbox", "image", "progressbar", "region", "table", "link")
    seen = set()
    for node in nodes:
        role = node.get("role", {}).get("value", "").lower()
        role = "image" if role in ("img", "graphics-document") else role
        if role in named and not node.get("ignored"):
            seen.add(role)
            if role != "table":
                assert node.get("name", {}).get("value"), node
    assert {"button", "searchbox", "image", "progressbar"} <= seen


@pytest.mark.parametrize("dark", [False, True])
def test_a_picture_of_the_page_shows_the_lines(
    browser: Browser, tmp_path: Path, dark: bool
) -> None:
    image = pytest.importorskip("PIL.Image")
    write_run(tmp_path)
    with served(str(tmp_path)) as url:
        browser.open(url, dark=dark)
        state_is(browser, "running")
        picture = image.open(io.BytesIO(browser.picture())).convert("RGB")
    counts = {color: n for n, color in picture.getcolors(1 << 24)}
    ground, up, down = (
        [(0x14, 0x16, 0x1A), (0x56, 0xB4, 0xE9), (0xE6, 0x9F, 0x00)]
        if dark
        else [(255, 255, 255), (0, 0x72, 0xB2), (0xB3, 0x59, 0)]
    )
    assert max(counts, key=lambda color: counts[color]) == ground
    assert counts[up] > 1_000
    assert counts[down] > 1_000


def test_a_resumed_run_says_from_where(browser: Browser, tmp_path: Path) -> None:
    from flwr_caesar.runner.config import compose

    write_run(tmp_path).finish({"w": np.zeros(1, np.float32)})
    resumed = RunFolder(tmp_path, {**compose(["rounds=9"]), "resume": str(tmp_path)})
    add_round(resumed, 4)
    with served(str(tmp_path)) as url:
        browser.open(url)
        state_is(browser, "running")
        assert "From round 4 on" in browser.ask("document.body.innerText")
        assert "4 of 9" in browser.ask("document.getElementById('tiles').innerText")
