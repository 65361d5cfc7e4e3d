"""A frozen class is, but for its making, a frozen dataclass."""

from __future__ import annotations

import copy
import pickle
from dataclasses import (
    KW_ONLY,
    FrozenInstanceError,
    asdict,
    dataclass,
    field,
    fields,
    is_dataclass,
    replace,
)
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pytest

from flwr_caesar.frozen import frozen


@frozen
class Box:
    """A box."""

    limit: ClassVar[float] = 9.0

    width: float
    height: float = 1.0
    labels: dict[str, int] = field(default_factory=dict)
    note: str = field(default="", repr=False, compare=False)
    _: KW_ONLY
    colour: str = "red"

    def __post_init__(self) -> None:
        if self.width > self.limit:
            raise ValueError("too wide")

    @cached_property
    def area(self) -> float:
        return self.width * self.height


@dataclass(frozen=True)
class Same:
    """The same, as a dataclass."""

    width: float
    height: float = 1.0
    labels: dict[str, int] = field(default_factory=dict)
    note: str = field(default="", repr=False, compare=False)
    _: KW_ONLY
    colour: str = "red"


@frozen
class Pair:
    """Two values that can be hashed."""

    a: int
    b: str = "b"


ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((2.0,), {}),
    ((2.0, 3.0), {}),
    ((2.0,), {"labels": {"x": 1}, "colour": "blue"}),
    ((), {"height": 5.0, "width": 2.0, "note": "n"}),
    ((2.0, 3.0, {}, "n"), {"colour": "blue"}),
]
WRONG: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((), {"height": 1.0}),
    ((1.0,), {"width": 1.0}),
    ((1.0,), {"depth": 1.0}),
    ((1.0, 1.0, {}, "n"), {"colour": "red", "depth": 1.0}),
    ((1.0, 1.0, {}, "n", "red"), {}),
]


@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS)
def test_it_holds_what_a_dataclass_holds(args, kwargs):
    made, same = Box(*args, **kwargs), Same(*args, **kwargs)
    assert is_dataclass(made)
    assert asdict(made) == asdict(same)
    assert repr(made) == repr(same).replace("Same", "Box")
    assert [each.name for each in fields(made)] == [each.name for each in fields(same)]


@pytest.mark.parametrize(("args", "kwargs"), WRONG)
def test_it_refuses_the_arguments_that_a_dataclass_refuses(args, kwargs):
    for cls in (Same, Box):
        with pytest.raises(TypeError):
            cls(*args, **kwargs)


def test_each_has_a_default_of_its_own():
    assert Box(1.0).labels is not Box(1.0).labels


def test_it_is_checked():
    with pytest.raises(ValueError, match="too wide"):
        Box(10.0)
    with pytest.raises(ValueError, match="too wide"):
        replace(Box(1.0), width=10.0)


def test_it_does_not_change():
    box = Box(2.0)
    for change in (
        lambda: setattr(box, "width", 3.0),
        lambda: setattr(box, "depth", 3.0),
        lambda: delattr(box, "width"),
    ):
        with pytest.raises(FrozenInstanceError):
            change()
    assert box == Box(2.0)
    assert box.area == 2.0
    assert replace(box, height=3.0).area == 6.0


def test_equal_values_are_equal():
    assert Pair(1) == Pair(1, "b")
    assert Pair(1) != Pair(2)
    assert Pair(1) != (1, "b")
    assert {Pair(1), Pair(1), Pair(2)} == {Pair(1), Pair(2)}
    assert Box(1.0, note="one") == Box(1.0, note="another")
    array = np.arange(3)
    assert Pair(array) == Pair(array)  # the same object, as tuples compare it


def test_it_is_copied_and_matched():
    box = Box(2.0, 3.0)
    assert pickle.loads(pickle.dumps(box)) == copy.deepcopy(box) == box
    match box:
        case Box(width, height, colour=colour):
            assert (width, height, colour) == (2.0, 3.0, "red")


def test_it_and_dataclasses_derive_from_each_other():
    @frozen
    class Base:
        """Has a default."""

        a: int = 1

    @frozen
    class Frozen(Base):
        """Adds a field, and another default."""

        a: int = 3
        b: int = 2

    @dataclass(frozen=True)
    class Plain(Base):
        """Adds a field."""

        b: int = 2

    @frozen
    class Mixed(Plain):
        """Is a frozen class again."""

        c: int = 4

    for made, expected in (
        (Frozen(), {"a": 3, "b": 2}),
        (Plain(b=5), {"a": 1, "b": 5}),
        (Mixed(0), {"a": 0, "b": 2, "c": 4}),
    ):
        assert asdict(made) == expected
        assert made == replace(made)
        assert hash(made) == hash(replace(made))
        assert made != Base(expected["a"])
        with pytest.raises(FrozenInstanceError):
            made.a = 2


def test_what_a_class_defines_itself_stays():
    @frozen
    class Named:
        """Has a text of its own."""

        a: int

        def __repr__(self) -> str:
            return "mine"

    assert repr(Named(1)) == "mine"
