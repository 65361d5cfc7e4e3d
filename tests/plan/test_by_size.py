import pytest

from flwr_caesar.plan.by_size import LARGE, SMALL, by_size


@pytest.mark.parametrize(
    ("elements", "value"),
    [(0, 3.0), (1, 3.0), (SMALL, 3.0), (65_000, 1.65), (LARGE, 0.3), (10**9, 0.3)],
)
def test_a_default_is_of_the_size(elements: int, value: float) -> None:
    assert by_size(elements, small=3.0, usual=0.3) == value


def test_between_the_sizes_it_only_falls() -> None:
    values = [by_size(n, small=0.4, usual=0.01) for n in range(SMALL, LARGE, 500)]
    assert values == sorted(values, reverse=True)
