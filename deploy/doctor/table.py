"""Findings as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence

from .finding import Finding, Level, exit_code

_MARKS = {Level.OK: "ok", Level.WARNING: "warn", Level.FAILURE: "FAIL"}


def to_table(findings: Sequence[Finding], *, width: int = 100) -> str:
    """Return a line a check, what to do below it, and how many of which kind."""
    names = max((len(finding.check) for finding in findings), default=0)
    lines: list[str] = []
    for finding in findings:
        head = f"{_MARKS[finding.level]:<4}  {finding.check:<{names}}  "
        lines += _wrapped(head, finding.text, width)
        if finding.fix:
            lines += _wrapped(" " * len(head) + "→ ", finding.fix, width)
    return "\n".join([*lines, "", _summary(findings)])


def to_json(findings: Sequence[Finding]) -> str:
    """Return an object: ``exit``, and ``findings`` with check, level, text and fix."""
    told = [finding.to_dict() for finding in findings]
    document = {"exit": exit_code(findings), "findings": told}
    return json.dumps(document, indent=2, ensure_ascii=False)


def _wrapped(head: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        max(width, len(head) + 30),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _summary(findings: Sequence[Finding]) -> str:
    fails = sum(finding.level is Level.FAILURE for finding in findings)
    warns = sum(finding.level is Level.WARNING for finding in findings)
    if not fails and not warns:
        return f"{len(findings)} checks, all well"
    return f"{len(findings)} checks: {fails} failed, {warns} to look at"
