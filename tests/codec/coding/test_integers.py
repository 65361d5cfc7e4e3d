"""Signed integers of any size as symbols and raw bits."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec.coding.integers import (
    MAX_MAGNITUDE,
    decode_integers,
    encode_integers,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.integers(-40, 40), st.integers(-MAX_MAGNITUDE, MAX_MAGNITUDE)),
        max_size=300,
    )
)
def test_integers_of_any_size_round_trip(values):
    values = np.array(values, np.int32)
    context = (np.arange(len(values)) % 3).astype(np.uint8)
    data = encode_integers(values, context, 3)
    assert (decode_integers(data, context, 3) == values).all()
