"""Android's classes as Java stubs, made of a machine-readable list of API 36.

`chaquopy-stubs-android` has the signatures as Python type stubs. For each class that
the client imports, and those above it, a stub with all its members is made; of classes
that are only mentioned, an empty one. What API 36 does not have then does not compile.
Return types do not tell ``int`` from ``long``, nor the list classes from interfaces:
`_LONG` and `_INTERFACES` do, for what the client uses.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path

_NUMBERS = {"jint": "int", "jlong": "long", "jfloat": "float", "jdouble": "double"}
_NUMBERS |= {"jboolean": "boolean", "jbyte": "byte", "jshort": "short", "jchar": "char"}
_PLAIN = {"int": "int", "bool": "boolean", "float": "float", "str": "String"}
_LONG: frozenset[str] = frozenset()
_MARKERS = frozenset({"java.security.spec.AlgorithmParameterSpec"})
_PARENTS = {"android.text.Editable": "java.lang.CharSequence"}
_INTERFACES = _PARENTS.keys() | {
    "android.os.IBinder",
    "android.view.View.OnClickListener",
}
_IMPORT = re.compile(r"^import (android\.[\w.]+)$", re.M)
_CONSTANT = "typing.ClassVar["
_KEYWORDS = frozenset({"native", "public", "final", "switch", "case", "default"})


class MissingClassError(LookupError):
    """API 36 has no class of this name."""


def imported(sources: Iterable[Path]) -> set[str]:
    """Return the classes of Android that Kotlin sources import."""
    found: set[str] = set()
    for path in sources:
        found |= set(_IMPORT.findall(path.read_text(encoding="utf-8")))
    return found


@cache
def _module(package: str) -> ast.Module:
    spec = importlib.util.find_spec("android-stubs")
    assert spec is not None
    assert spec.submodule_search_locations
    root = Path(next(iter(spec.submodule_search_locations)))
    parts = package.split(".")[1:]
    path = root.joinpath(*parts, "__init__.pyi")
    return ast.parse(path.read_text(encoding="utf-8"))


def _split(name: str) -> tuple[str, list[str]]:
    """Return package and nested class names of a full name."""
    parts = name.split(".")
    first = next(i for i, part in enumerate(parts) if part[0].isupper())
    return ".".join(parts[:first]), parts[first:]


def _find(name: str) -> ast.ClassDef:
    package, nested = _split(name)
    body: list[ast.stmt] = _module(package).body
    found: ast.ClassDef | None = None
    for part in nested:
        found = next(
            (n for n in body if isinstance(n, ast.ClassDef) and n.name == part), None
        )
        if found is None:
            raise MissingClassError(f"API 36 has no {name}")
        body = found.body
    assert found is not None
    return found


def _is_class(name: str) -> bool:
    """Whether a name is no interface: it has a constructor."""
    return any(
        isinstance(member, ast.FunctionDef) and member.name == "__init__"
        for member in _find(name).body
    )


@dataclass
class _Class:
    """A class to write: its superclass, a marker interface, and lines of Java."""

    parent: str = ""
    marker: str = ""
    lines: list[str] = field(default_factory=list)


class Stubs:
    """The stubs of some classes and of all that they need.

    Parameters
    ----------
    names : iterable of str
        Full names, as Kotlin imports them.

    Raises
    ------
    MissingClassError
        If API 36 has no class of a name.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._classes: dict[str, _Class] = {}
        self._mentioned: set[str] = set()
        for name in sorted(names):
            self._add(name)
        while rest := self._mentioned - self._classes.keys():
            for name in sorted(rest):
                self._classes[name] = _Class(_PARENTS.get(name) or self._parent(name))
        for name in list(self._classes):
            package, nested = _split(name)
            for depth in range(1, len(nested)):
                outer = f"{package}." + ".".join(nested[:depth])
                self._classes.setdefault(outer, _Class())

    def write(self, folder: Path) -> list[Path]:
        """Write a file for each outermost class; return them."""
        paths = []
        for name in self._classes:
            package, nested = _split(name)
            if len(nested) == 1:
                path = folder.joinpath(*package.split("."), f"{nested[0]}.java")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"package {package};\n{self._text(name)}")
                paths.append(path)
        return paths

    def _add(self, name: str) -> None:
        if name in self._classes:
            return
        node = _find(name)
        made = self._classes[name] = _Class()
        made.parent = self._parent(name)
        if made.parent.startswith("android."):
            self._add(made.parent)
        bases = {self._type(ast.unparse(base), name) for base in node.bases}
        made.marker = next(iter(bases & _MARKERS), "")
        for member in node.body:
            if isinstance(member, ast.ClassDef):
                self._add(f"{name}.{member.name}")
            elif isinstance(member, ast.AnnAssign):
                made.lines += self._field(member, name)
            elif isinstance(member, ast.FunctionDef):
                made.lines += self._method(member, name)

    def _parent(self, name: str) -> str:
        """Return the class above one, among its interfaces; empty if none is."""
        bases = [self._type(ast.unparse(base), name) for base in _find(name).bases]
        android = [base for base in bases if base.startswith("android.")]
        classes = android if len(android) == 1 else filter(_is_class, android)
        errors = (base for base in bases if base.endswith("Exception"))
        return next(chain(errors, classes), "")

    def _field(self, member: ast.AnnAssign, owner: str) -> Iterator[str]:
        assert isinstance(member.target, ast.Name)
        kind, name = ast.unparse(member.annotation), member.target.id
        if not kind.startswith(_CONSTANT):
            yield f"public {self._type(kind, owner)} {name};"
            return
        java = self._type(kind.removeprefix(_CONSTANT).removesuffix("]"), owner)
        value = {"int": "0", "String": '""', "boolean": "false", "float": "0"}
        yield f"public static final {java} {name} = {value.get(java, 'null')};"

    def _method(self, member: ast.FunctionDef, owner: str) -> Iterator[str]:
        is_static = any("staticmethod" in ast.unparse(d) for d in member.decorator_list)
        given = [*member.args.posonlyargs, *member.args.args]
        types = [
            self._annotation(arg.annotation, owner)
            for arg in (given if is_static else given[1:])
        ]
        if member.args.vararg:
            types.append(self._annotation(member.args.vararg.annotation, owner) + "...")
        arguments = ", ".join(f"{kind} p{i}" for i, kind in enumerate(types))
        simple = owner.rpartition(".")[2]
        if member.name == "__init__":
            yield f"public {simple}({arguments}) {{ throw new Error(); }}"
            return
        if member.name in _KEYWORDS or member.name.startswith("_"):
            return
        returned = self._annotation(member.returns, owner, is_returned=True)
        if f"{owner}.{member.name}" in _LONG:
            returned = "long"
        if owner in _INTERFACES:
            yield f"{returned} {member.name}({arguments});"
            return
        static = "static " if is_static else ""
        yield (
            f"public {static}{returned} {member.name}({arguments}) "
            "{ throw new Error(); }"
        )

    def _annotation(
        self, node: ast.expr | None, owner: str, *, is_returned: bool = False
    ) -> str:
        text = "None" if node is None else ast.unparse(node)
        options = [option.strip() for option in _alternatives(text)]
        options = [option for option in options if option != "None"]
        if not options:
            return "void"
        for option in options:
            number = _NUMBERS.get(option.removeprefix("java."))
            if number and not is_returned:
                return number
        # "java.lang.CharSequence | str": the type that Java has is named first.
        named = [option for option in options if option not in _PLAIN]
        return self._type((named or options)[0], owner)

    def _type(self, text: str, owner: str) -> str:
        text = text.strip().strip("'\"")
        array = re.fullmatch(r"java\.chaquopy\.JavaArrayJ(\w+)", text)
        if array:
            return array.group(1).lower() + "[]"
        array = re.fullmatch(r"java\.chaquopy\.JavaArray\[(.*)\]", text)
        if array:
            return self._type(array.group(1), owner) + "[]"
        text = re.sub(r"\[.*\]", "", text)
        if text in _PLAIN:
            return _PLAIN[text]
        if text.startswith(("typing.", "_")) or len(text) == 1:
            return "Object"
        if text[0].isupper():
            text = f"{_split(owner)[0]}.{text}"
        if text.startswith("android."):
            self._mentioned.add(text)
            return text
        return text if text.startswith(("java.", "javax.")) else "Object"

    def _text(self, name: str, *, is_nested: bool = False) -> str:
        made, simple = self._classes[name], name.rpartition(".")[2]
        kind = "interface" if name in _INTERFACES else "class"
        parent = f" extends {made.parent}" if made.parent else ""
        parent += f" implements {made.marker}" if made.marker else ""
        static = "static " if is_nested and kind == "class" else ""
        lines = sorted(set(made.lines))
        if kind == "class" and not any(f"public {simple}()" in line for line in lines):
            lines.append(f"protected {simple}() {{}}")
        inner = [
            self._text(other, is_nested=True)
            for other in self._classes
            if other.rpartition(".")[0] == name
        ]
        body = "\n".join([*lines, *inner])
        return f"public {static}{kind} {simple}{parent} {{\n{body}\n}}\n"


def _alternatives(text: str) -> list[str]:
    """Split a union at its own bars, not at those within brackets."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "|" and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def compile_stubs(names: Iterable[str], folder: Path) -> Path:
    """Compile the stubs of some classes; return the folder of the classes."""
    sources = Stubs(names).write(folder / "stubs")
    # ExecuTorch's library has no machine-readable list: what is used of it, by hand.
    sources += sorted((Path(__file__).parent / "executorch").rglob("*.java"))
    classes = folder / "classes"
    done = subprocess.run(
        ["javac", "-nowarn", "-proc:none", "-d", str(classes), *map(str, sources)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"javac failed:\n{done.stderr}")
    return classes
