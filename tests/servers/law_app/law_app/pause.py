"""Points at which the test may kill a process."""

import os
import time
from pathlib import Path


def pause(folder: str, point: str) -> None:
    """If the test asked for it, say who is here and wait to be killed."""
    wish = Path(folder) / f"pause-{point}"
    try:
        wish.unlink()
    except FileNotFoundError:
        return
    (Path(folder) / f"at-{point}").write_text(str(os.getpid()))
    time.sleep(120)
