"""Classes of elements, from the scales of their channels."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.codec.coding.contexts import scale_classes


@pytest.mark.parametrize(
    ("scale", "expected"),
    [(-255, 0), (-33, 0), (-32, 0), (-31, 1), (0, 32), (63, 95), (64, 95), (255, 95)],
)
def test_a_class_is_the_scale_within_its_limits(scale: int, expected: int) -> None:
    scales = np.array([scale], np.int16)
    assert scale_classes(scales, (1, 1, 4)).reshape(-1).tolist() == [expected] * 4


def test_scales_of_channels_are_added_before_the_limits_hold() -> None:
    scales = np.array([-100, *[70] * 48, *[0, 60] * 24], np.int16)
    classes = scale_classes(scales, (48, 48, 1))[:, :, 0]
    assert (classes[:, 0::2] == 2).all()
    assert (classes[:, 1::2] == 62).all()
