"""The ledger in one SQLite file."""

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Mapping

from webpd.ledger.database import Database, Schema
from webpd.ledger.port import Directory, Known, Totals
from webpd.model import Result, Sidecar

# What totals() and results() answer is kept up to date by triggers: counting 600,000 rows would take too long.
# Statements end at empty lines.
_TABLES = """\
CREATE TABLE boot (id TEXT NOT NULL)

CREATE TABLE root (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,
    kind TEXT,
    directories INTEGER NOT NULL DEFAULT 0,
    unsettled INTEGER NOT NULL DEFAULT 0,
    images INTEGER NOT NULL DEFAULT 0,
    orphans INTEGER NOT NULL DEFAULT 0
)

CREATE TABLE directory (
    root INTEGER NOT NULL,
    path BLOB NOT NULL,
    mtime_ns INTEGER,
    sure INTEGER NOT NULL DEFAULT 0,
    looked REAL NOT NULL DEFAULT 0,
    images INTEGER NOT NULL DEFAULT 0,
    orphans INTEGER NOT NULL DEFAULT 0,
    orphaned REAL NOT NULL DEFAULT 0,
    pruned INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (root, path)
) WITHOUT ROWID

CREATE INDEX orphaned ON directory (root, orphaned) WHERE orphans > 0

CREATE INDEX emptied ON directory (root, path) WHERE pruned = 1

CREATE TABLE known (
    root INTEGER NOT NULL,
    directory BLOB NOT NULL,
    name BLOB NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    sidecar TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    result TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail BLOB NOT NULL,
    PRIMARY KEY (root, directory, name)
) WITHOUT ROWID

CREATE TABLE tally (
    root INTEGER NOT NULL,
    result TEXT NOT NULL,
    reason TEXT NOT NULL,
    files INTEGER NOT NULL,
    PRIMARY KEY (root, result, reason)
) WITHOUT ROWID

CREATE TRIGGER directory_added AFTER INSERT ON directory BEGIN
    UPDATE root SET
        directories = directories + 1,
        unsettled = unsettled + (NEW.mtime_ns IS NULL),
        images = images + NEW.images,
        orphans = orphans + NEW.orphans
    WHERE id = NEW.root;
END

CREATE TRIGGER directory_changed AFTER UPDATE OF mtime_ns, images, orphans ON directory
WHEN (OLD.mtime_ns IS NULL) <> (NEW.mtime_ns IS NULL) OR OLD.images <> NEW.images OR OLD.orphans <> NEW.orphans BEGIN
    UPDATE root SET
        unsettled = unsettled + (NEW.mtime_ns IS NULL) - (OLD.mtime_ns IS NULL),
        images = images + NEW.images - OLD.images,
        orphans = orphans + NEW.orphans - OLD.orphans
    WHERE id = NEW.root;
END

CREATE TRIGGER directory_removed AFTER DELETE ON directory BEGIN
    UPDATE root SET
        directories = directories - 1,
        unsettled = unsettled - (OLD.mtime_ns IS NULL),
        images = images - OLD.images,
        orphans = orphans - OLD.orphans
    WHERE id = OLD.root;
END

CREATE TRIGGER known_added AFTER INSERT ON known BEGIN
    INSERT INTO tally VALUES (NEW.root, NEW.result, NEW.reason, 1) ON CONFLICT DO UPDATE SET files = files + 1;
END

CREATE TRIGGER known_changed AFTER UPDATE OF result, reason ON known
WHEN OLD.result <> NEW.result OR OLD.reason <> NEW.reason BEGIN
    UPDATE tally SET files = files - 1 WHERE root = OLD.root AND result = OLD.result AND reason = OLD.reason;
    INSERT INTO tally VALUES (NEW.root, NEW.result, NEW.reason, 1) ON CONFLICT DO UPDATE SET files = files + 1;
END

CREATE TRIGGER known_removed AFTER DELETE ON known BEGIN
    UPDATE tally SET files = files - 1 WHERE root = OLD.root AND result = OLD.result AND reason = OLD.reason;
END
"""

_COLUMNS = "path, mtime_ns, sure, looked, images, orphans, orphaned, pruned"

_RECORD = f"""
INSERT INTO directory (root, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET mtime_ns = excluded.mtime_ns, sure = excluded.sure, looked = excluded.looked,
    images = excluded.images, orphans = excluded.orphans, orphaned = excluded.orphaned,
    pruned = max(pruned, excluded.pruned)
"""  # noqa: S608 - the columns are ours

_LEARN = """
INSERT INTO known VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns, sidecar = excluded.sidecar,
    fingerprint = excluded.fingerprint, result = excluded.result, reason = excluded.reason, detail = excluded.detail
"""

# What os.fsdecode and Directory(…) come to in the end. A poll cycle makes one of each directory, and this takes half as
# long.
_ENCODING = sys.getfilesystemencoding()
_decode = bytes.decode
_new: Callable[[type[Directory], tuple[object, ...]], Directory] = tuple.__new__


class SqliteLedger:
    """The ledger in the SQLite file at ``path``, an absolute path; the only one of its folder. Implements ``Ledger``.

    Losing the file, or a part of it, costs only looking again, so that damage never raises (see ``Database``). Raises
    ``UnfitError`` where the file can't be made, or where another process has the folder.
    """

    def __init__(self, path: str) -> None:
        doubt = "UPDATE directory SET mtime_ns = NULL WHERE mtime_ns IS NOT NULL"
        self._database = Database(
            path, Schema(version=1, tables=tuple(_TABLES.split("\n\n")), opened=_forget_clock, doubt=doubt)
        )

    def directories(self, root: str, after: str | None, limit: int) -> list[Directory]:
        if after is None:
            return self._select("path >= x'' ORDER BY path LIMIT ?", root, limit)
        return self._select("path > ? ORDER BY path LIMIT ?", root, os.fsencode(after), limit, after=os.fsencode(after))

    def directory(self, root: str, path: str) -> Directory | None:
        found = self._select("path = ?", root, os.fsencode(path))
        return found[0] if found else None

    def discover(self, root: str, paths: Iterable[str]) -> list[str]:
        names = [(path, os.fsencode(path)) for path in paths]
        insert = "INSERT OR IGNORE INTO directory (root, path) VALUES (?, ?)"

        def work(connection: sqlite3.Connection) -> list[str]:
            key = _add_root(connection, root)
            return [path for path, name in names if connection.execute(insert, (key, name)).rowcount == 1]

        return self._database.write(work) or []

    def record(self, root: str, directory: Directory) -> None:
        path, mtime_ns, *rest = directory
        row = (os.fsencode(path), None if mtime_ns is None else _storable(mtime_ns), *rest)
        self._database.write(lambda connection: connection.execute(_RECORD, (_add_root(connection, root), *row)))

    def spare(self, root: str, path: str) -> None:
        spare = "UPDATE directory SET pruned = 0 WHERE root = ? AND path = ?"
        self._database.write(lambda connection: connection.execute(spare, (_root(connection, root), os.fsencode(path))))

    def doubt(self, root: str, paths: Iterable[str]) -> None:
        names = [os.fsencode(path) for path in paths]
        self._database.write(lambda connection: _doubt(connection, _root(connection, root), names))

    def forget(self, root: str, path: str) -> None:
        name = os.fsencode(path)
        # What is below "a" lies between "a/" and "a0": the byte after "/" is "0". Below the root lies all.
        below, beyond = (name + b"/", name + b"0") if name else (b"", None)

        def work(connection: sqlite3.Connection) -> None:
            key = _root(connection, root)
            for table, column in (("directory", "path"), ("known", "directory")):
                delete = f"DELETE FROM {table} WHERE root = ? AND {column}"  # noqa: S608 - the names are ours
                connection.execute(f"{delete} = ?", (key, name))
                if beyond is None:
                    connection.execute(f"{delete} >= ?", (key, below))
                else:
                    connection.execute(f"{delete} >= ? AND {column} < ?", (key, below, beyond))
            if name:
                _doubt(connection, key, [os.path.dirname(name)])

        self._database.write(work)

    def orphaned(self, root: str, before: float, limit: int) -> list[Directory]:
        where = "orphans > 0 AND orphaned < ? ORDER BY orphaned, path LIMIT ?"
        return self._select(where, root, before, limit, index="orphaned")

    def emptied(self, root: str, limit: int) -> list[Directory]:
        return self._select("pruned = 1 ORDER BY path DESC LIMIT ?", root, limit, index="emptied")

    def totals(self, root: str) -> Totals:
        select = "SELECT directories, unsettled, images, orphans FROM root WHERE path = ?"
        row = self._database.read(lambda connection: connection.execute(select, (os.fsencode(root),)).fetchone())
        return Totals(*(row or (0, 0, 0, 0)))

    def known(self, root: str, directory: str) -> Mapping[str, Known]:
        select = """SELECT name, size, mtime_ns, sidecar, fingerprint, result, reason, detail FROM known
            WHERE root = ? AND directory = ?"""

        def work(connection: sqlite3.Connection) -> Mapping[str, Known]:
            rows = connection.execute(select, (_root(connection, root), os.fsencode(directory)))
            return {
                os.fsdecode(name): Known(
                    size, mtime_ns, Sidecar(sidecar), fingerprint, Result(result), reason, _from_blob(detail)
                )
                for name, size, mtime_ns, sidecar, fingerprint, result, reason, detail in rows
            }

        return self._database.read(work)

    def learn(self, root: str, directory: str, known: Mapping[str, Known]) -> None:
        rows = [
            (
                os.fsencode(directory),
                os.fsencode(name),
                it.size,
                _storable(it.mtime_ns),
                it.sidecar.value,
                it.fingerprint,
                it.result.value,
                str(it.reason),
                _to_blob(it.detail),
            )
            for name, it in known.items()
        ]

        def work(connection: sqlite3.Connection) -> None:
            key = _add_root(connection, root)
            connection.executemany(_LEARN, ((key, *row) for row in rows))

        self._database.write(work)

    def unlearn(self, root: str, directory: str, names: Iterable[str]) -> None:
        folder = os.fsencode(directory)
        files = [os.fsencode(name) for name in names]

        def work(connection: sqlite3.Connection) -> None:
            key = _root(connection, root)
            delete = "DELETE FROM known WHERE root = ? AND directory = ? AND name = ?"
            connection.executemany(delete, ((key, folder, name) for name in files))

        self._database.write(work)

    def outdate(self, root: str, fingerprint: bytes) -> None:
        others = "SELECT directory FROM known WHERE root = ?1 AND fingerprint NOT IN (?2, x'')"
        doubt = f"UPDATE directory SET mtime_ns = NULL WHERE root = ?1 AND path IN ({others})"  # noqa: S608 - ours
        self._database.write(lambda connection: connection.execute(doubt, (_root(connection, root), fingerprint)))

    def results(self, root: str) -> Mapping[tuple[Result, str], int]:
        select = "SELECT result, reason, files FROM tally WHERE root = ? AND files > 0"

        def work(connection: sqlite3.Connection) -> Mapping[tuple[Result, str], int]:
            rows = connection.execute(select, (_root(connection, root),))
            return {(Result(result), reason): files for result, reason, files in rows}

        return self._database.read(work)

    def kind(self, root: str) -> str | None:
        select = "SELECT kind FROM root WHERE path = ?"
        row = self._database.read(lambda connection: connection.execute(select, (os.fsencode(root),)).fetchone())
        return row[0] if row else None

    def note_kind(self, root: str, kind: str) -> None:
        update = "UPDATE root SET kind = ? WHERE id = ?"
        self._database.write(lambda connection: connection.execute(update, (kind, _add_root(connection, root))))

    def flush(self) -> None:
        self._database.flush()

    def close(self) -> None:
        self._database.close()

    def _select(
        self, where: str, root: str, *values: object, index: str = "", after: bytes | None = None
    ) -> list[Directory]:
        hint = f"INDEXED BY {index}" if index else ""
        select = f"SELECT {_COLUMNS} FROM directory {hint} WHERE root = ? AND {where}"  # noqa: S608 - all of it is ours

        def work(connection: sqlite3.Connection) -> list[Directory]:
            rows = connection.execute(select, (_root(connection, root), *values)).fetchall()
            if rows and after is not None and rows[-1][0] <= after:  # a damaged tree would be paged through for ever
                raise sqlite3.DatabaseError("paths are out of order")
            return [
                _new(
                    Directory,
                    (
                        _decode(path, _ENCODING, "surrogateescape"),
                        mtime_ns,
                        sure == 1,
                        looked,
                        images,
                        orphans,
                        orphaned,
                        pruned == 1,
                    ),
                )
                for path, mtime_ns, sure, looked, images, orphans, orphaned, pruned in rows
            ]

        return self._database.read(work)


def _root(connection: sqlite3.Connection, root: str) -> int | None:
    row = connection.execute("SELECT id FROM root WHERE path = ?", (os.fsencode(root),)).fetchone()
    return row[0] if row else None


def _add_root(connection: sqlite3.Connection, root: str) -> int:
    key = _root(connection, root)
    if key is None:
        key = connection.execute("INSERT INTO root (path) VALUES (?)", (os.fsencode(root),)).lastrowid
    return key or 0


def _doubt(connection: sqlite3.Connection, key: int | None, names: list[bytes]) -> None:
    update = "UPDATE directory SET mtime_ns = NULL WHERE root = ? AND path = ? AND mtime_ns IS NOT NULL"
    connection.executemany(update, ((key, name) for name in names))


def _forget_clock(connection: sqlite3.Connection) -> None:
    """Readings of the monotonic clock mean nothing after a boot: looks count as long ago, orphans as just seen."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    if connection.execute("SELECT id FROM boot").fetchall() != [(boot,)]:
        connection.execute("UPDATE directory SET looked = 0 WHERE looked <> 0")
        connection.execute("UPDATE directory SET orphaned = ? WHERE orphans > 0", (time.monotonic(),))
        connection.execute("DELETE FROM boot")
        connection.execute("INSERT INTO boot VALUES (?)", (boot,))


def _storable(mtime_ns: int) -> int:
    """Return it, or the nearest that SQLite can hold: a file of the year 2263 is then only looked at again."""
    return max(-(2**63), min(mtime_ns, 2**63 - 1))


def _to_blob(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _from_blob(blob: bytes) -> str:
    return _decode(blob, "utf-8", "surrogatepass")
