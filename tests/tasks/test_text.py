from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.tasks.text import VOCABULARY, encode_ascii, encode_text


def test_the_vocabulary_is_leafs_in_size_and_without_repetition():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 80


@given(st.lists(st.text(VOCABULARY, min_size=5, max_size=5)))
def test_known_characters_can_be_read_back(lines):
    codes = encode_text(lines, 5)
    assert codes.shape == (len(lines), 5)
    assert ["".join(VOCABULARY[c] for c in row) for row in codes] == lines


@given(st.text(max_size=12))
def test_any_text_has_valid_codes(line):
    codes = encode_text([line], 6)
    assert codes.shape == (1, 6)
    assert codes.min() >= 0
    assert codes.max() < 80


def test_long_lines_keep_their_end_and_short_ones_are_padded_in_front():
    space = VOCABULARY.index(" ")
    assert encode_text(["abc"], 2).tolist() == encode_text(["bc"], 2).tolist()
    assert encode_text(["a"], 2).tolist() == [[space, VOCABULARY.index("a")]]


@given(st.text(max_size=20))
def test_ascii_can_be_read_back_and_the_rest_is_a_space(text):
    codes = encode_ascii(text)
    back = "".join("\n" if c == 95 else chr(c + 32) for c in codes)
    assert back == "".join(c if " " <= c <= "~" or c == "\n" else " " for c in text)
