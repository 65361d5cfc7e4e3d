"""Tables of each strategy's options, made of the constructors: for the pages.

``python -m tests.options`` writes them into docs/; a test holds the pages to them, and
the runner's configuration files to the constructors' defaults.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from flwr_caesar import strategies
from flwr_caesar.strategies.options import Options, WrapperOptions

ROOT = Path(__file__).parents[1]
PAGES = {
    "Caesar": "docs/caesar.md",
    "FedComLoc": "docs/fedcomloc.md",
    "MagnitudePruning": "docs/pruning.md",
    "ErrorBounded": "docs/error-bounded.md",
    "CorrelationAware": "docs/correlation-aware.md",
    "CAFe": "docs/cafe.md",
    "SignEF": "docs/sign-ef.md",
    "TopK": "docs/strategies.md",
    "QSGD": "docs/strategies.md",
    "WrapperOptions": "docs/strategies.md",
}
# Which class a file of conf/strategy configures, and what it sets otherwise than the
# constructor does by itself: the reason stands on the class's page.
_TRAIN = "one setting of the run for all strategies"
_INITIAL = "the reference app gives its devices `initial`"
_RANDOM = "the reference app starts from a random model"
_PAPER = "Caesar as published"
_PRUNING = "magnitude pruning as published"
_BLOG = "the blog's recipe"
_VARIANT = "what is compressed"
_CONTROL = "the control without the plan"
CONF: dict[str, tuple[str, dict[str, str]]] = {
    "fedavg": ("Uncompressed", {}),
    "topk": ("TopK", {}),
    "cafe": ("CAFe", {}),
    "sign_ef": ("SignEF", {}),
    "qsgd": ("QSGD", {}),
    "caesar": (
        "Caesar",
        {
            "shared_start": _INITIAL,
            "local_steps": _TRAIN,
            "max_batch": _TRAIN,
        },
    ),
    "caesar_whole": (
        "Caesar",
        {"first_bits": _RANDOM, "local_steps": _TRAIN, "max_batch": _TRAIN},
    ),
    "caesar_paper": (
        "Caesar",
        {"codec": _PAPER, "local_steps": _TRAIN, "max_batch": _TRAIN},
    ),
    "uniform": (
        "Caesar",
        {
            "codec": _PAPER,
            "staleness_aware": _CONTROL,
            "importance_aware": _CONTROL,
            "ask_labels": _CONTROL,
            "local_steps": _TRAIN,
            "max_batch": _TRAIN,
        },
    ),
    "pruning": ("MagnitudePruning", {"bits": _TRAIN, "levels": _TRAIN}),
    "pruning_paper": (
        "MagnitudePruning",
        {
            "prune_rate": _PRUNING,
            "exclude_1d": _PRUNING,
            "relative": _PRUNING,
            "bits": _TRAIN,
            "levels": _TRAIN,
        },
    ),
    "error_bounded": ("ErrorBounded", {}),
    "error_bounded_paper": (
        "ErrorBounded",
        {"predictor": "the paper's predictors", "rank": "no outer products"},
    ),
    "correlation_aware": ("CorrelationAware", {}),
    "blog_recipe": (
        "CorrelationAware",
        {"density": _BLOG, "bits": _BLOG, "allocation": _BLOG},
    ),
    "fedcomloc": ("FedComLoc", {"lr": _TRAIN, "seed": _TRAIN}),
    "fedcomloc_local": (
        "FedComLoc",
        {"variant": _VARIANT, "lr": _TRAIN, "seed": _TRAIN},
    ),
    "fedcomloc_global": (
        "FedComLoc",
        {"variant": _VARIANT, "lr": _TRAIN, "seed": _TRAIN},
    ),
    "fedcomloc_global_paper": (
        "FedComLoc",
        {
            "variant": _VARIANT,
            "feedback": "FedComLoc-Global as published",
            "lr": _TRAIN,
            "seed": _TRAIN,
        },
    ),
    "scaffnew": (
        "FedComLoc",
        {"density": "no compression", "lr": _TRAIN, "seed": _TRAIN},
    ),
    "sparse_fedavg": (
        "FedComLoc",
        {"control": "no control variates", "lr": _TRAIN, "seed": _TRAIN},
    ),
}
_ENTRY = re.compile(r"^(\w+) : (?:\{(.*?)\})?.*$")
_MISSING = object()


def described(doc: str) -> dict[str, str]:
    """Return the text of each parameter of a numpydoc docstring."""
    section = inspect.cleandoc(doc).split("Parameters\n----------\n")[1]
    section = re.split(r"\n\w[\w ]*\n-{3,}\n", section)[0]
    found: dict[str, list[str]] = {}
    name = ""
    for line in section.splitlines():
        entry = _ENTRY.match(line)
        if entry:
            name = entry.group(1)
            choices = entry.group(2)
            found[name] = [_one_of(choices)] if choices else []
        elif line.startswith("    ") and name:
            found[name].append(line.strip())
        elif line.strip():
            name = ""
    return {key: " ".join(lines) for key, lines in found.items()}


def _one_of(choices: str) -> str:
    names = [f"`{choice.strip()}`" for choice in choices.split(",")]
    return f"{', '.join(names[:-1])} or {names[-1]}."


def defaults(name: str) -> dict[str, Any]:
    """Return the default of each option; `_MISSING` if it must be given."""
    if name == "WrapperOptions":
        own = {field.name: field for field in fields(Options)}
        return {
            option: own[option].default_factory()
            if callable(own[option].default_factory)
            else own[option].default
            for option in described_of(name)
        }
    parameters = inspect.signature(getattr(strategies, name)).parameters.values()
    return {
        p.name: _MISSING if p.default is p.empty else p.default
        for p in parameters
        if p.kind is p.KEYWORD_ONLY
    }


def described_of(name: str) -> dict[str, str]:
    """Return what the docstring of a class says of its options."""
    owner = WrapperOptions if name == "WrapperOptions" else getattr(strategies, name)
    return {k: v for k, v in described(owner.__doc__ or "").items() if k != "strategy"}


def conf_values(file: str) -> Mapping[str, Any]:
    """Return what a file of conf/strategy sets, interpolations unresolved."""
    path = ROOT / "conf" / "strategy" / f"{file}.yaml"
    raw = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(raw, dict)
    values: dict[str, Any] = {}
    for base in raw.get("defaults", []):
        if base != "_self_":
            values |= conf_values(str(base).partition("@")[0])
    own = raw.get("strategy", raw)
    plain = ("name", "defaults", "train")
    return values | {str(k): v for k, v in own.items() if k not in plain}


def table(name: str) -> str:
    """Return the Markdown table of a class's options."""
    told, values = described_of(name), defaults(name)
    assert told.keys() == values.keys(), (name, told.keys() ^ values.keys())
    rows = ["| option | default | what it does |", "| --- | --- | --- |"]
    for option, default in values.items():
        shown = "must be given" if default is _MISSING else f"`{_shown(default)}`"
        text = told[option].replace("``", "`").replace("|", "\\|")
        rows.append(f"| `{option}` | {shown} | {text} |")
    notes = []
    for file, (owner, other) in CONF.items():
        if owner == name and other:
            own = conf_values(file)
            parts = [f"`{k}: {_conf(own[k])}` ({why})" for k, why in other.items()]
            line = f"- `strategy={file}` of the runner sets {', '.join(parts)}."
            notes.append(textwrap.fill(line, 96, subsequent_indent="  ", **_WRAP))
    return "\n".join([*rows, *(["", *notes] if notes else [])])


_WRAP: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def _conf(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if value is not None and not isinstance(value, (bool, int, float)):
        return f"{type(value).__name__}()"
    return "1 GiB" if value == 1 << 30 else str(value)


def with_tables(page: Path) -> str:
    """Return a page with the tables that the code says it has."""
    text = page.read_text(encoding="utf-8")

    def fresh(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- options {name} -->\n\n{table(name)}\n\n<!-- end -->"

    return re.sub(r"<!-- options (\w+) -->.*?<!-- end -->", fresh, text, flags=re.S)


def main() -> None:
    """Write the tables into the pages."""
    for page in sorted(set(PAGES.values())):
        path = ROOT / page
        path.write_text(with_tables(path), encoding="utf-8")


if __name__ == "__main__":
    main()
