"""What counts as the start of a device's process."""

from __future__ import annotations

import threading
import time

import pytest

from flwr_caesar.clients import stopwatch


def test_what_other_threads_do_is_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower fetches a message in threads, before the app is loaded."""
    monkeypatch.setattr(stopwatch, "_seconds_queued", lambda: 0.0)
    fetched = 0.2

    def fetch() -> None:
        until = time.thread_time() + fetched
        while time.thread_time() < until:
            sum(range(1000))

    thread = threading.Thread(target=fetch)
    thread.start()
    thread.join()
    before = stopwatch._Startup()._before
    assert before is not None
    assert before <= time.process_time() - fetched


def test_what_another_device_decoded_counts_as_decoded_here() -> None:
    watch = stopwatch.Stopwatch()
    watch.spared(100.0)
    watch.decoded()
    watch.trained()
    report = watch.report(part={})
    assert 100.0 <= report.decode < 101.0
    assert report.train + report.encode < 1.0
