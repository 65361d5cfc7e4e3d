"""A frame gives back its sections, and only an intact frame is read."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError, inspect_frame
from flwr_caesar.codec.contract.frame import (
    RAISED,
    FrameReader,
    Section,
    add_section,
    same_config,
    stamp,
    write_frame,
)

DIGEST = bytes(range(16))
tags = st.text(
    st.characters(min_codepoint=48, max_codepoint=90), min_size=1, max_size=4
)
sections = st.lists(
    st.builds(
        Section,
        tags,
        st.binary(max_size=300) | st.binary(max_size=9).map(lambda b: b * 50),
        st.sampled_from([0, 1, 2, 4, 8]),
    ),
    unique_by=lambda section: section.tag,
    max_size=5,
)


def frame_of(*content: Section, config: Any = None) -> bytes:
    return write_frame(
        config=config or {"id": "x"}, layout_digest=DIGEST, sections=content
    )


def raw_frame(
    config: bytes, entries: list[tuple[bytes, int, int, bytes]], **preamble: int
) -> bytes:
    """Assemble a sealed frame from parts that the writer would not write."""
    header = struct.pack("<H", len(config)) + config
    for tag, encoding, size, data in entries:
        header += struct.pack("<4sBQQ", tag, encoding, size, len(data))
    fields = {
        "version": 1,
        "flags": 0,
        "count": len(entries),
        "header": len(header),
    } | preamble
    frame = struct.pack(
        "<4sBBHII8sQQ16s",
        b"CSAR",
        *fields.values(),
        0,
        bytes(8),
        0,
        0,
        DIGEST,
    )
    return seal(frame + header + b"".join(data for *_, data in entries))


def seal(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def read(frame: bytes, size: int, tag: str = "A") -> bytes:
    return FrameReader(frame).section(tag, size=size)


@given(sections)
def test_sections_round_trip(content: list[Section]) -> None:
    frame = frame_of(*content)
    reader = FrameReader(frame)
    for section in content:
        assert section.tag in reader
        assert reader.section(section.tag, size=len(section.data)) == section.data
        assert reader.section(section.tag, max_size=10_000) == section.data
    assert reader.info.size == len(frame)
    assert reader.info.sections == {s.tag: len(s.data) for s in content}


def test_a_frame_tells_what_it_is() -> None:
    config = {"id": "x", "a": 0.5, "b": [1, {"c": True}]}
    frame = write_frame(
        config=config,
        layout_digest=DIGEST,
        sections=[],
        state_version=7,
        state_digest=b"8 bytes!",
    )
    info = inspect_frame(stamp(frame, lineage=2**64 - 1, base_version=5))
    assert info.config == config
    assert (info.layout_digest, info.size) == (DIGEST, len(frame))
    assert (info.state_version, info.state_digest) == (7, b"8 bytes!")
    assert (info.lineage, info.base_version) == (2**64 - 1, 5)


def test_a_stamp_changes_nothing_else() -> None:
    frame = frame_of(Section("A", b"data"))
    assert stamp(frame, lineage=0, base_version=0) == frame
    twice = stamp(stamp(frame, lineage=1, base_version=2), lineage=0, base_version=0)
    assert twice == frame


def test_compressible_sections_shrink_and_others_stay_raw() -> None:
    assert len(frame_of(Section("A", bytes(10_000), 4))) < 200
    assert len(frame_of(Section("A", bytes(10_000), 0))) > 10_000


@given(st.data())
def test_every_flipped_bit_is_noticed(data: st.DataObject) -> None:
    frame = bytearray(frame_of(Section("A", b"some content", 0)))
    position = data.draw(st.integers(0, 8 * len(frame) - 1))
    frame[position // 8] ^= 1 << position % 8
    with pytest.raises(CodecError):
        FrameReader(bytes(frame))


def test_every_truncation_is_noticed() -> None:
    frame = frame_of(Section("A", b"some content", 0))
    for size in range(len(frame)):
        with pytest.raises(CodecError):
            FrameReader(frame[:size])


@pytest.mark.parametrize(
    ("preamble", "words"),
    [
        ({"version": 2}, "frame format 2"),
        ({"flags": 1}, "unknown flags 0x1"),
        ({"count": 0}, "does not match its section count"),
        ({"count": 1024}, "does not match its section count"),
        ({"count": 1025}, "1025 sections, at most 1024"),
        ({"count": 65535}, "65535 sections, at most 1024"),
        ({"header": 0}, "header exceeds"),
        ({"header": 2**32 - 1}, "header exceeds"),
    ],
)
def test_a_sealed_lie_in_the_preamble_is_refused(
    preamble: dict[str, int], words: str
) -> None:
    frame = raw_frame(b'{"id":"x"}', [(b"A", 0, 1, b"1")], **preamble)
    with pytest.raises(CodecError, match=words):
        FrameReader(frame)


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[]",
        b"{}",
        b'{"id":7}',
        b'{"id":"x"',
        b'{"id":"x","id":"y"}',
        b'{"id":"x","a":{"b":1,"b":1}}',
        b'{"id":"x","a":NaN}',
        b'{"id":"x","a":-Infinity}',
        b'{"id":"x","a":' + b"9" * 5000 + b"}",
        b'{"id":"x","a":' + b"[" * 50_000 + b"]" * 5_000 + b"}",
        b"\xff\xfe" + '{"id":"x"}'.encode("utf-16-le"),
        '{"id":"x"}'.encode("utf-16-le"),
        b'{"id":"\xed\xa0\x80"}',
        b'{"id":"x","a":1e400}',
        b'{"id":"x","a":[-1e400]}',
        b'{"id":"x","a":' + b"1" * 5000 + b"}",
    ],
    ids=lambda config: repr(config[:20]),
)
def test_configurations_that_are_not_plain_json_are_refused(config: bytes) -> None:
    with pytest.raises(CodecError, match="codec configuration"):
        FrameReader(raw_frame(config, []))


def test_sections_must_fill_the_frame_exactly() -> None:
    good = raw_frame(b'{"id":"x"}', [(b"A", 0, 1, b"1")])
    with pytest.raises(CodecError, match="no section names"):
        FrameReader(seal(good[:-4] + b"2"))
    with pytest.raises(CodecError, match="exceeds the frame"):
        FrameReader(seal(good[:-5]))


def test_a_repeated_section_is_refused() -> None:
    with pytest.raises(CodecError, match="repeated"):
        FrameReader(raw_frame(b'{"id":"x"}', [(b"A", 0, 1, b"1")] * 2))


@pytest.mark.parametrize("tag", [b"\0\0\0\0", b"A\0B\0", b"\0A\0\0", b"\xe9", b"A\x80"])
def test_the_reader_refuses_other_tags(tag: bytes) -> None:
    with pytest.raises(CodecError, match="tag"):
        FrameReader(raw_frame(b'{"id":"x"}', [(tag, 0, 1, b"1")]))


def test_a_tag_may_have_any_ascii_character_but_zero() -> None:
    entries = [(b"a", 0, 1, b"1"), (b"\x7f ~\x01", 0, 1, b"2"), (b"A", 0, 0, b"")]
    reader = FrameReader(raw_frame(b'{"id":"x"}', entries))
    assert reader.section("\x7f ~\x01", size=1) == b"2"
    assert [*reader.info.sections] == ["a", "\x7f ~\x01", "A"]


def test_a_frame_has_at_most_so_many_sections() -> None:
    most = [Section(f"{i:04}", b"") for i in range(1024)]
    frame = frame_of(*most)
    assert len(inspect_frame(frame).sections) == 1024
    with pytest.raises(CodecError, match="1025 sections"):
        frame_of(*most, Section("MORE", b""))
    with pytest.raises(CodecError, match="1025 sections"):
        add_section(frame, Section("MORE", b""), RAISED)


@pytest.mark.parametrize("tag", ["", "FIVE5", "é", "A\0", "A\0B"])
def test_the_writer_refuses_other_tags(tag: str) -> None:
    with pytest.raises(CodecError, match="section tag"):
        frame_of(Section(tag, b""))


def test_the_writer_refuses_a_long_configuration() -> None:
    with pytest.raises(CodecError, match="max 65535"):
        frame_of(config={"id": "x" * 65536})


zeros = zstandard.ZstdCompressor().compress(bytes(1000))
unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))


@pytest.mark.parametrize(
    ("encoding", "size", "data"),
    [
        (0, 3, b"1234"),
        (1, 999, zeros),
        (1, 1000, unsized),
        (1, 1000, zeros + b"more"),
        (1, 1000, zeros[:-1]),
        (1, 1000, b""),
        (1, 4, b"\0\0\0\0"),
        (3, 1001, zstandard.ZstdCompressor().compress(bytes(1001))),
        (5, 1000, zeros),
        (255, 4, b"1234"),
    ],
)
def test_a_section_that_lies_is_refused(encoding: int, size: int, data: bytes) -> None:
    frame = raw_frame(b'{"id":"x"}', [(b"A", encoding, size, data)])
    with pytest.raises(CodecError, match="section 'A'"):
        read(frame, size)


def zstd(descriptor: int, rest: bytes, data: bytes) -> bytes:
    """Return a zstd frame of one raw block, its header written by hand."""
    block = struct.pack("<I", len(data) << 3 | 1)[:3] + data
    return struct.pack("<IB", 0xFD2FB528, descriptor) + rest + block


DATA = bytes(range(200))
SKIPPABLE = struct.pack("<II", 0x184D2A50, 4) + b"abcd"
summed = zstandard.ZstdCompressor(write_checksum=True).compress(DATA)
plain = zstandard.ZstdCompressor().compress(DATA)


@pytest.mark.parametrize(
    "data",
    [
        summed,
        zstd(0x20, b"\xc8", DATA),
        zstd(0x21, b"\0\xc8", DATA),  # the dictionary of number 0 is none
        zstd(0x30, b"\xc8", DATA),  # the bit that has no meaning
        zstd(0xC0, b"\0" + struct.pack("<Q", 200), DATA),
        zstd(0xC0, b"\xaf" + struct.pack("<Q", 200), DATA),  # a window of 3.75 GiB
    ],
    ids=("checksum", "raw", "dictionary 0", "unused bit", "1 KiB", "3.75 GiB"),
)
def test_a_reader_takes_every_zstd_frame_of_the_page(data: bytes) -> None:
    frame = raw_frame(b'{"id":"x"}', [(b"A", 1, 200, data)])
    assert read(frame, 200) == DATA


@pytest.mark.parametrize(
    "data",
    [
        summed[:-1] + bytes([summed[-1] ^ 1]),
        zstd(0x21, b"\5\xc8", DATA),
        zstd(0x28, b"\xc8", DATA),
        zstd(0xC0, b"\xb0" + struct.pack("<Q", 200), DATA),  # a window of 4 GiB
        SKIPPABLE + plain,
        plain + SKIPPABLE,
        plain + plain,
    ],
    ids=("checksum", "dictionary 5", "reserved", "window", "before", "after", "two"),
)
def test_a_reader_refuses_other_zstd_frames(data: bytes) -> None:
    frame = raw_frame(b'{"id":"x"}', [(b"A", 1, 200, data)])
    with pytest.raises(CodecError, match="section 'A'"):
        read(frame, 200)


def test_size_is_checked_before_decompression() -> None:
    frame = frame_of(Section("A", bytes(1000), 1))
    with pytest.raises(CodecError, match="claims 1000 bytes, expected 999"):
        FrameReader(frame).section("A", max_size=999)
    with pytest.raises(CodecError, match="claims 1000 bytes, expected 1001"):
        FrameReader(frame).section("A", size=1001)
    with pytest.raises(CodecError, match="no section 'B'"):
        FrameReader(frame).section("B", size=0)
    with pytest.raises(TypeError):
        FrameReader(frame).section("A")


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0.0, False, False),
        ("1", 1, False),
        (None, None, True),
        ([1, 2], (1, 2.0), True),
        ([1, 2], [1], False),
        ({"a": [True]}, {"a": [1]}, False),
        ({"a": 1}, {"a": 1, "b": 1}, False),
        (2**63 + 1, 2.0**63, False),
        (2**53 + 1, float(2**53 + 1), False),
        (0.1, json.loads("0.1000000000000000055511151231257827"), True),
        (1.0, json.loads("1e0"), True),
        (0, json.loads("-0.0"), True),
    ],
)
def test_configurations_are_compared_as_json(a: Any, b: Any, same: bool) -> None:
    assert same_config(a, b) is same
    assert same_config(b, a) is same
    assert same_config(a, json.loads(json.dumps(a)))
