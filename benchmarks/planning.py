"""Seconds to plan a round: 10,000 devices out of 1,000,000 known.

A round learns 10,000 replies (volumes, label histograms, training and transfer times),
ranks them among all known devices, and decides everything for the next 10,000: download
ratios, clusters, upload ratios, rates, batch sizes, and a deadline's choices. The table
is written to docs/benchmarks/planning.md.

    python benchmarks/planning.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from environment import describe

from flwr_caesar.plan import (
    Estimates,
    Population,
    batch_sizes,
    cluster,
    communication_seconds,
    download_ratio,
    fit_deadline,
    rate_for,
    staleness,
)

TABLE = Path(__file__).parents[1] / "docs" / "benchmarks" / "planning.md"
PARAMETERS = 11_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--known", type=int, default=1_000_000)
    parser.add_argument("--round", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=62)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path, default=TABLE)
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    known = np.arange(options.known)
    population, estimates = Population(), Estimates()
    learn(population, estimates, known, options.classes, rng)
    last_round = rng.integers(1, 1000, options.known)

    taken: dict[str, list[float]] = defaultdict(list)
    for number in range(1000, 1000 + options.repeats):
        devices = rng.choice(options.known, options.round, replace=False)
        replies = reply(devices, options.classes, rng)
        parts = {
            "learn the replies": lambda r=replies: observe(population, estimates, r),
            "rank all, upload ratios, rates": lambda d=devices: rate_for(
                population.upload_ratio(d), base_rate=0.5, spread=2
            ),
            "staleness, ratios, 4 clusters": lambda d=devices, n=number: cluster(
                download_ratio(staleness(last_round[d], n), n)
            ),
            "estimates and batch sizes": lambda d=devices: batches(estimates, d),
            "deadline": lambda d=devices: deadline(estimates, d),
        }
        for name, act in parts.items():
            taken[name].append(seconds(act))
        last_round[devices] = number
    taken["all of a round"] = [
        sum(round) for round in zip(*taken.values(), strict=True)
    ]

    lines = [
        "# Planning a round",
        "",
        f"{options.round:,} devices of a round out of {options.known:,} known, "
        f"{options.classes} labels each, all histograms revealed, staleness of 1 to "
        f"1,000 rounds; one thread, {options.repeats} rounds. Target: at most 1 s.",
        "",
        "| part | median, ms | longest, ms |",
        "| --- | ---: | ---: |",
    ]
    for name, times in taken.items():
        median, longest = statistics.median(times) * 1e3, max(times) * 1e3
        lines.append(f"| {name} | {median:.0f} | {longest:.0f} |")
    lines += ["", describe("python benchmarks/planning.py", ("numpy",))]
    options.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def reply(devices, classes, rng):
    counts = rng.multinomial(200, rng.dirichlet(np.full(classes, 0.3), len(devices)))
    return devices, counts, rng.lognormal(1, 1, len(devices))


def observe(population: Population, estimates: Estimates, replies) -> None:
    devices, counts, spent = replies
    population.update(devices, counts.sum(axis=1), counts)
    estimates.observe_training(devices, seconds=spent, samples=np.full(len(spent), 320))
    ones = np.ones(len(spent))
    estimates.observe_transfer(
        devices, bytes_down=4e6 * ones, bytes_up=1e6 * ones, seconds=spent
    )


def learn(population, estimates, known, classes, rng) -> None:
    for devices in np.array_split(known, max(1, len(known) // 50_000)):
        observe(population, estimates, reply(devices, classes, rng))


def batches(estimates: Estimates, devices):
    return batch_sizes(
        seconds_per_sample=estimates.seconds_per_sample.predict(devices),
        comm_seconds=communication_seconds(
            4e6,
            1e6,
            down_bytes_per_second=estimates.down_bytes_per_second.predict(devices),
            up_bytes_per_second=estimates.up_bytes_per_second.predict(devices),
        ),
        local_steps=10,
        max_batch=32,
    )


def deadline(estimates: Estimates, devices):
    return fit_deadline(
        30.0,
        fixed_seconds=4e6 / estimates.down_bytes_per_second.predict(devices),
        seconds_per_sample=estimates.seconds_per_sample.predict(devices),
        up_bytes_per_second=estimates.up_bytes_per_second.predict(devices),
        parameters=PARAMETERS,
        local_steps=10,
        max_batch=32,
        max_rate=1.0,
    )


if __name__ == "__main__":
    main()
