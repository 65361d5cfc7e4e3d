"""Rows of a database that carry checksums, most of them kept twice.

SQLite finds damage to the structure of its file, not to the values in it: a flipped bit
in the id of an upload would silently be another id.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

_MAX_TERMS = 900  # of a query; older SQLite stops at 999

Row = tuple[Any, ...]
"""Values of the columns, the key first; text is read as bytes, so that any can be."""


class CheckedTable:
    """A table whose rows are verified when they are read.

    Connections need ``text_factory = bytes``.

    Parameters
    ----------
    name : str
        Of the table; its copy has the suffix ``_copy``.
    columns : mapping of str to str
        SQL types by name; the first is the key.
    is_twin : bool
        Whether there is a copy, which is read where a row is damaged.
    grows : tuple of str
        Columns that tell which of two rows is the newer: that with the larger values.
    """

    def __init__(
        self,
        name: str,
        columns: Mapping[str, str],
        *,
        is_twin: bool = True,
        grows: tuple[str, ...] = (),
    ) -> None:
        self.tables = (name, f"{name}_copy") if is_twin else (name,)
        self._columns = {**columns, "checksum": "INTEGER NOT NULL"}
        self._key = next(iter(columns))
        self._grows = grows
        self._texts = [n for n, kind in enumerate(columns.values()) if "TEXT" in kind]

    def create(self, database: sqlite3.Connection) -> None:
        """Create it."""
        columns = ", ".join(f"{name} {kind}" for name, kind in self._columns.items())
        for table in self.tables:
            # One tree for key and values, so that neither can point to another's.
            database.execute(f"CREATE TABLE {table} ({columns}) WITHOUT ROWID")

    def put(self, database: sqlite3.Connection, rows: Iterable[Row]) -> None:
        """Add rows; one whose key is there replaces the other."""
        # Without the condition every row that is put would dirty a page.
        self._insert(database, rows, "checksum != excluded.checksum")

    def merge(self, database: sqlite3.Connection, rows: Iterable[Row]) -> None:
        """Add rows; of two with one key the newer stays."""
        now, new = (
            ", ".join(prefix + name for name in self._grows) or "0"
            for prefix in ("", "excluded.")
        )
        self._insert(database, rows, f"({new}) > ({now})")

    def clear(self, database: sqlite3.Connection, least: Any = None) -> None:
        """Remove all rows, or those with a smaller key."""
        for table in self.tables:
            if least is None:
                database.execute(f"DELETE FROM {table}")
            else:
                query = f"DELETE FROM {table} WHERE {self._key} < ?"
                database.execute(query, (least,))

    def get(
        self, database: sqlite3.Connection, keys: Collection[str | int]
    ) -> tuple[list[Row], list[str | int]]:
        """Return the rows with these keys, and the keys of which no copy is good."""
        found: dict[str | int | bytes, Row] = {}
        damaged: set[str | int | bytes] = set()
        for table in self.tables:
            missing = [key for key in keys if _plain(key) not in found]
            for start in range(0, len(missing), _MAX_TERMS):
                part = missing[start : start + _MAX_TERMS]
                where = f"WHERE {self._key} IN ({', '.join('?' * len(part))})"
                for row in database.execute(f"SELECT * FROM {table} {where}", part):
                    if is_good(row):
                        found[row[0]] = row[:-1]
                    else:
                        damaged.add(row[0])
        lost = [k for k in keys if _plain(k) in damaged and _plain(k) not in found]
        return list(found.values()), lost

    def rows(self, database: sqlite3.Connection, table: str) -> Iterator[Row]:
        """Return all rows of one of `tables`, good or bad, with their checksums."""
        yield from database.execute(f"SELECT * FROM {table}")

    def _insert(
        self, database: sqlite3.Connection, rows: Iterable[Row], replaces: str
    ) -> None:
        sealed = [self._sealed(list(row)) for row in rows]
        marks = ", ".join("?" * len(self._columns))
        sets = ", ".join(f"{name} = excluded.{name}" for name in self._columns)
        for table in self.tables:
            database.executemany(
                f"INSERT INTO {table} VALUES ({marks}) ON CONFLICT ({self._key}) "
                f"DO UPDATE SET {sets} WHERE {replaces}",
                sealed,
            )

    def _sealed(self, row: list[Any]) -> Row:
        for index in self._texts:
            if isinstance(row[index], bytes):
                row[index] = row[index].decode()
        return (*row, _checksum(tuple(row)))


def is_good(row: Row) -> bool:
    """Whether a row with its checksum is what was put."""
    return bool(row[-1] == _checksum(row[:-1]))


def _checksum(values: Row) -> int:
    return zlib.crc32(repr(tuple(map(_plain, values))).encode())


def _plain(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value
