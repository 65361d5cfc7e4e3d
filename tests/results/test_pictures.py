"""Pictures in which nothing lies over anything else."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from flwr_caesar.results.pictures import (
    Line,
    draw_accuracy,
    draw_stacks,
    figure,
)


def test_a_legend_lies_over_no_bar() -> None:
    made = figure(9.0, 2.0)
    axes = made.subplots()
    parts = {"up": [1.0, 5.0], "down": [2.0, 1.0], "waiting": [9.0, 9.0]}
    draw_stacks(axes, ["one", "two"], parts, "seconds")
    made.canvas.draw()
    legend = axes.get_legend().get_window_extent()
    for bar in axes.patches:
        assert not legend.overlaps(bar.get_window_extent())


def test_names_at_the_ends_of_lines_lie_over_no_other() -> None:
    made = figure(10.0, 4.0)
    axes = made.subplots()
    x = np.linspace(1.0, 10.0, 5)
    lines = [
        Line(f"topk density=0.{n}", x, np.full((1, 5), 90.0 + 0.01 * n))
        for n in range(6)
    ]
    draw_accuracy(axes, lines, "megabytes")
    made.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 6
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_accuracy_is_drawn_from_seventy_percent_where_all_lines_get_there() -> None:
    made = figure(10.0, 4.0)
    high, low = made.subplots(1, 2)
    x = np.linspace(1.0, 10.0, 5)
    good = Line("caesar", x, np.linspace(10, 95, 5)[None])
    bad = Line("topk", x, np.linspace(10, 60, 5)[None])
    draw_accuracy(high, [good], "megabytes")
    draw_accuracy(low, [good, bad], "megabytes")
    assert high.get_ylim()[0] == 70
    assert low.get_ylim()[0] < 15
