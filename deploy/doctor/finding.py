"""What a check found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from flwr_caesar.deploy.words import Advice


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Parameters
    ----------
    check : str
        What was checked, in a word or two.
    level : Level
        How bad it is.
    text : str
        What was found, a sentence without a full stop.
    fix : str
        What to do about it; empty if nothing.
    """

    check: str
    level: Level
    text: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return it for JSON."""
        return {key: str(value) for key, value in asdict(self).items()}


def ok(check: str, text: str) -> Finding:
    """Return that all is well."""
    return Finding(check, Level.OK, text)


def warning(check: str, advice: Advice) -> Finding:
    """Return what may become a problem."""
    return Finding(check, Level.WARNING, advice.problem, advice.fix)


def failure(check: str, advice: Advice) -> Finding:
    """Return what keeps it from working."""
    return Finding(check, Level.FAILURE, advice.problem, advice.fix)


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 0 if all is well, 1 if something was warned of, 2 if something fails."""
    levels = {finding.level for finding in findings}
    return 2 if Level.FAILURE in levels else int(Level.WARNING in levels)
