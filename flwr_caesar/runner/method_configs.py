"""Where Hydra finds the configuration groups of installed methods."""

from __future__ import annotations

import logging

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from flwr_caesar.methods import get_method, list_methods

_log = logging.getLogger(__name__)


class MethodConfigs(SearchPathPlugin):
    """Append each method's ``conf`` package behind ours, so that it replaces nothing.

    A method that does not load is left out with a warning: it must not stop the runs
    of others.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """See `SearchPathPlugin`."""
        for name in list_methods():
            try:
                package = get_method(name).conf
            except LookupError as error:
                _log.warning("%s", error)
                continue
            if package:
                search_path.append(f"flwr_caesar.methods:{name}", f"pkg://{package}")


def use_method_configs() -> None:
    """Let Hydra, in this process, find the groups of installed methods."""
    Plugins.instance().register(MethodConfigs)
