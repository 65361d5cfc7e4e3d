"""What the reference app trains: data in partitions, and models.

Importing this package imports neither torch nor a data library; models are in
`flwr_caesar.tasks.models`.
"""

from .config import DataConfig
from .data import load_partition, load_test
from .errors import ConfigError
from .examples import Examples

__all__ = ["ConfigError", "DataConfig", "Examples", "load_partition", "load_test"]
