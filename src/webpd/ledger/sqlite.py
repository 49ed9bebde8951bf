"""The ledger in one SQLite file."""

import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Mapping

from webpd.ledger.database import Database, ReadOnly, Source
from webpd.ledger.port import Directory, Pass, Totals
from webpd.ledger.schema import SCHEMA, add_root, delete_tree, from_blob, root_id, storable, to_blob
from webpd.ledger.sqlite_history import SqliteHistory
from webpd.model import Known, Result, Sidecar

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

_NOTE_PASS = """
INSERT INTO pass SELECT id, ?, ?, directories, unsettled, images, orphans,
    (SELECT coalesce(sum(files), 0) FROM tally WHERE root = id AND result = 'kept_original'),
    (SELECT coalesce(sum(files), 0) FROM tally WHERE root = id AND result = 'skipped'),
    (SELECT coalesce(sum(files), 0) FROM tally WHERE root = id AND result = 'failed')
FROM root WHERE id = ?
ON CONFLICT DO UPDATE SET ended = excluded.ended, full_ended = coalesce(excluded.full_ended, full_ended),
    directories = excluded.directories, unsettled = excluded.unsettled, images = excluded.images,
    orphans = excluded.orphans, kept = excluded.kept, skipped = excluded.skipped, failed = excluded.failed
"""  # noqa: S105 - no secret

# What os.fsdecode and Directory(…) come to in the end. A poll cycle makes one of each directory, and this takes half as
# long.
_ENCODING = sys.getfilesystemencoding()
_decode = bytes.decode
_new: Callable[[type[Directory], tuple[object, ...]], Directory] = tuple.__new__


class SqliteLedgerReader:
    """What may be asked of the ledger in a SQLite file. Implements ``LedgerReader``."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def roots(self) -> list[str]:
        def work(connection: sqlite3.Connection) -> list[str]:
            return [os.fsdecode(path) for (path,) in connection.execute("SELECT path FROM root ORDER BY path")]

        return self._source.read(work)

    def totals(self, root: str) -> Totals:
        select = "SELECT directories, unsettled, images, orphans FROM root WHERE path = ?"

        def work(connection: sqlite3.Connection) -> Totals:
            row = connection.execute(select, (os.fsencode(root),)).fetchone()
            return Totals(*map(int, row or (0, 0, 0, 0)))

        return self._source.read(work)

    def results(self, root: str) -> Mapping[tuple[Result, str], int]:
        select = "SELECT result, reason, files FROM tally WHERE root = ? AND files > 0"

        def work(connection: sqlite3.Connection) -> Mapping[tuple[Result, str], int]:
            rows = connection.execute(select, (root_id(connection, root),))
            return {(Result(result), reason): files for result, reason, files in rows}

        return self._source.read(work)

    def files(self, root: str, result: Result, reason: str, limit: int) -> list[str]:
        select = """SELECT directory, name FROM known WHERE root = ? AND result = ? AND reason = ?
            ORDER BY directory, name LIMIT ?"""

        def work(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute(select, (root_id(connection, root), result.value, reason, limit))
            return [os.fsdecode(os.path.join(directory, name)) for directory, name in rows]

        return self._source.read(work)

    def passed(self, root: str) -> Pass | None:
        select = """SELECT ended, full_ended, directories, unsettled, images, orphans, kept, skipped, failed FROM pass
            WHERE root = ?"""

        def work(connection: sqlite3.Connection) -> Pass | None:
            row = connection.execute(select, (root_id(connection, root),)).fetchone()
            if row is None:
                return None
            ended, full, *counts = row
            numbers = [int(count) for count in counts]
            return Pass(float(ended), None if full is None else float(full), Totals(*numbers[:4]), *numbers[4:])

        return self._source.read(work)

    def kind(self, root: str) -> str | None:
        select = "SELECT kind FROM root WHERE path = ?"

        def work(connection: sqlite3.Connection) -> str | None:
            row = connection.execute(select, (os.fsencode(root),)).fetchone()
            return os.fsdecode(row[0]) if row and row[0] is not None else None

        return self._source.read(work)


class SqliteLedger(SqliteLedgerReader):
    """The ledger in the SQLite file at ``path``, an absolute path; the only one of its folder. Implements ``Ledger``.

    Losing the file, or a part of it, costs only looking again (and the history), so that damage never raises (see
    ``Database``). Raises ``UnfitError`` where the file can't be made, or where another process has the folder.
    """

    def __init__(self, path: str) -> None:
        self._database = Database(path, SCHEMA)
        super().__init__(self._database)
        self.history = SqliteHistory(self._database)
        """The history in the same file; usable until the ledger is closed."""

    @property
    def fault(self) -> str:
        """Why what is learnt now is lost, "" where it is kept."""
        return self._database.fault

    @property
    def aside(self) -> str:
        """Where a damaged file was put that this one has replaced since the start, "" where there was none."""
        return self._database.aside

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
            key = add_root(connection, root)
            return [path for path, name in names if connection.execute(insert, (key, name)).rowcount == 1]

        return self._database.write(work) or []

    def record(self, root: str, directory: Directory) -> None:
        path, mtime_ns, *rest = directory
        row = (os.fsencode(path), None if mtime_ns is None else storable(mtime_ns), *rest)
        self._database.write(lambda connection: connection.execute(_RECORD, (add_root(connection, root), *row)))

    def spare(self, root: str, path: str) -> None:
        spare = "UPDATE directory SET pruned = 0 WHERE root = ? AND path = ?"
        self._database.write(
            lambda connection: connection.execute(spare, (root_id(connection, root), os.fsencode(path)))
        )

    def doubt(self, root: str, paths: Iterable[str]) -> None:
        names = [os.fsencode(path) for path in paths]
        self._database.write(lambda connection: _doubt(connection, root_id(connection, root), names))

    def forget(self, root: str, path: str) -> None:
        name = os.fsencode(path)

        def work(connection: sqlite3.Connection) -> None:
            key = root_id(connection, root)
            delete_tree(connection, "directory", "path", key, name)
            delete_tree(connection, "known", "directory", key, name)
            if name:
                _doubt(connection, key, [os.path.dirname(name)])
            else:
                connection.execute("DELETE FROM pass WHERE root = ?", (key,))

        self._database.write(work)

    def orphaned(self, root: str, before: float, limit: int) -> list[Directory]:
        where = "orphans > 0 AND orphaned < ? ORDER BY orphaned, path LIMIT ?"
        return self._select(where, root, before, limit, index="orphaned")

    def emptied(self, root: str, limit: int) -> list[Directory]:
        return self._select("pruned = 1 ORDER BY path DESC LIMIT ?", root, limit, index="emptied")

    def known(self, root: str, directory: str, name: str | None = None) -> Mapping[str, Known]:
        select = """SELECT name, size, mtime_ns, sidecar, fingerprint, result, reason, detail FROM known
            WHERE root = ? AND directory = ?"""
        one = () if name is None else (os.fsencode(name),)
        if one:
            select += " AND name = ?"

        def work(connection: sqlite3.Connection) -> Mapping[str, Known]:
            rows = connection.execute(select, (root_id(connection, root), os.fsencode(directory), *one))
            return {
                os.fsdecode(name): Known(
                    size, mtime_ns, Sidecar(sidecar), fingerprint, Result(result), reason, from_blob(detail)
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
                storable(it.mtime_ns),
                it.sidecar.value,
                it.fingerprint,
                it.result.value,
                str(it.reason),
                to_blob(it.detail),
            )
            for name, it in known.items()
        ]

        def work(connection: sqlite3.Connection) -> None:
            key = add_root(connection, root)
            connection.executemany(_LEARN, ((key, *row) for row in rows))

        self._database.write(work)

    def unlearn(self, root: str, directory: str, names: Iterable[str]) -> None:
        folder = os.fsencode(directory)
        files = [os.fsencode(name) for name in names]

        def work(connection: sqlite3.Connection) -> None:
            key = root_id(connection, root)
            delete = "DELETE FROM known WHERE root = ? AND directory = ? AND name = ?"
            connection.executemany(delete, ((key, folder, name) for name in files))

        self._database.write(work)

    def outdate(self, root: str, fingerprint: bytes) -> None:
        others = "SELECT directory FROM known WHERE root = ?1 AND fingerprint NOT IN (?2, x'')"
        doubt = f"UPDATE directory SET mtime_ns = NULL WHERE root = ?1 AND path IN ({others})"  # noqa: S608 - ours
        self._database.write(lambda connection: connection.execute(doubt, (root_id(connection, root), fingerprint)))

    def note_pass(self, root: str, at: float, *, full: bool) -> None:
        self._database.write(
            lambda connection: connection.execute(_NOTE_PASS, (at, at if full else None, add_root(connection, root)))
        )

    def note_kind(self, root: str, kind: str) -> None:
        update = "UPDATE root SET kind = ? WHERE id = ?"
        self._database.write(
            lambda connection: connection.execute(update, (os.fsencode(kind), add_root(connection, root)))
        )

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
            rows = connection.execute(select, (root_id(connection, root), *values)).fetchall()
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


def read_ledger(path: str) -> SqliteLedgerReader:
    """Return what may be asked of the ledger's file while a service writes it, and while none runs.

    Every question raises ``UnfitError`` where there is no such file, or where it is damaged, of another version or not
    for us to read.
    """
    return SqliteLedgerReader(ReadOnly(path, SCHEMA.version))


def _doubt(connection: sqlite3.Connection, key: int | None, names: list[bytes]) -> None:
    update = "UPDATE directory SET mtime_ns = NULL WHERE root = ? AND path = ? AND mtime_ns IS NOT NULL"
    connection.executemany(update, ((key, name) for name in names))
