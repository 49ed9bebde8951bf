"""The history on SQLite: in the ledger's file, or read from it beside the service."""

import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

from webpd.ledger.database import Database, ReadOnly, Source
from webpd.ledger.history import KEPT, MOST_IMAGES, MOST_RECENT, SECONDS, Event, Step, Total, spans, sums
from webpd.ledger.schema import SCHEMA, add_root, delete_tree, from_blob, root_id, storable, to_blob
from webpd.model import Result

# Old entries go once so many events were noted, and so many of them at a time: counting two million images takes about
# as long as noting some thousand.
_PURGE_EVERY = 20_000
_PURGE_BATCH = 1_000

_COLUMNS = (
    "path, size, mtime_ns, width, height, format, result, reason, detail, webp_bytes, seconds, fingerprint, at, host"
)

_NOTE = f"""
INSERT INTO image (root, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns, width = excluded.width,
    height = excluded.height, format = excluded.format, result = excluded.result, reason = excluded.reason,
    detail = excluded.detail, webp_bytes = excluded.webp_bytes, seconds = excluded.seconds,
    fingerprint = excluded.fingerprint, at = excluded.at, host = excluded.host
WHERE excluded.at >= at
"""  # noqa: S608 - the columns are ours

_ADD = """
INSERT INTO total VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET images = images + excluded.images, source_bytes = source_bytes + excluded.source_bytes,
    webp_bytes = webp_bytes + excluded.webp_bytes, seconds = seconds + excluded.seconds
"""


class SqliteHistoryReader:
    """The history in a SQLite file. Implements ``RecentReader``."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def image(self, root: str, path: str) -> Event | None:
        select = f"SELECT {_COLUMNS} FROM image WHERE root = ? AND path = ?"  # noqa: S608 - the columns are ours

        def work(connection: sqlite3.Connection) -> Event | None:
            row = connection.execute(select, (root_id(connection, root), os.fsencode(path))).fetchone()
            return _event(root, row) if row else None

        return self._source.read(work)

    def failures(
        self, root: str | None = None, *, after: tuple[str, str] | None = None, limit: int = 1000
    ) -> list[Event]:
        begin, passed = (os.fsencode(after[0]), os.fsencode(after[1])) if after else (b"", b"")

        def work(connection: sqlite3.Connection) -> list[Event]:
            found: list[Event] = []
            for key, name in connection.execute("SELECT id, path FROM root WHERE path >= ? ORDER BY path", (begin,)):
                if root is None or name == os.fsencode(root):
                    found += _failures(connection, key, name, passed if name == begin else b"", limit - len(found))
                if len(found) >= limit:
                    break
            return found

        return self._source.read(work)

    def reasons(self) -> Mapping[str, int]:
        select = "SELECT reason, count(*) FROM image INDEXED BY failed WHERE result = 'failed' GROUP BY reason"
        return self._source.read(lambda connection: {reason: int(n) for reason, n in connection.execute(select)})

    def totals(self, since: float, until: float) -> Mapping[Result, Total]:
        times = [value for span in spans(since, until) for value in span]
        part = "SELECT * FROM total WHERE step = ? AND start >= ? AND start < ?"
        parts = " UNION ALL ".join([part] * (len(times) // 3))
        select = f"""SELECT result, sum(images), sum(source_bytes), sum(webp_bytes), sum(seconds) FROM ({parts})
            GROUP BY result"""  # noqa: S608 - all of it is ours

        def work(connection: sqlite3.Connection) -> Mapping[Result, Total]:
            return {Result(result): Total(*values) for result, *values in connection.execute(select, times)}

        return self._source.read(work)

    def series(self, since: float, until: float, step: Step) -> list[tuple[int, Result, Total]]:
        select = """SELECT start, result, images, source_bytes, webp_bytes, seconds FROM total
            WHERE step = ? AND start >= ? AND start < ? ORDER BY start, result"""

        def work(connection: sqlite3.Connection) -> list[tuple[int, Result, Total]]:
            rows = connection.execute(select, (step, since, until))
            return [(start, Result(result), Total(*values)) for start, result, *values in rows]

        return self._source.read(work)

    def recent(self, limit: int) -> list[Event]:
        last = "SELECT rowid FROM image ORDER BY at DESC LIMIT ?"
        select = f"""SELECT (SELECT path FROM root WHERE id = root), {_COLUMNS} FROM image
            WHERE rowid IN ({last}) AND result = 'converted' ORDER BY at DESC, rowid DESC LIMIT ?"""  # noqa: S608 - ours

        def work(connection: sqlite3.Connection) -> list[Event]:
            rows = connection.execute(select, (MOST_RECENT, limit))
            return [_event(os.fsdecode(root), row) for root, *row in rows]

        return self._source.read(work)

    def close(self) -> None:
        """Nothing is held between two questions."""


class SqliteHistory(SqliteHistoryReader):
    """The history in the ledger's database. Implements ``History``; closing it leaves the ledger open."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._database = database
        self._noted = _PURGE_EVERY  # by the process before, for all we know

    def note(self, events: Sequence[Event]) -> None:
        rows = [_row(event) for event in events]
        added = [
            (step, start, result.value, total.images, total.source_bytes, total.webp_bytes, total.seconds)
            for (step, start, result), total in sums(events).items()
        ]

        def work(connection: sqlite3.Connection) -> None:
            keys = {root: add_root(connection, root) for root in {event.root for event in events}}
            connection.executemany(_NOTE, ((keys[event.root], *row) for event, row in zip(events, rows, strict=True)))
            connection.executemany(_ADD, added)

        self._database.write(work)
        self._noted += len(events)
        if self._noted >= _PURGE_EVERY:
            self._noted = 0
            self._purge()

    def forget(self, root: str, path: str) -> None:
        name = os.fsencode(path)
        self._database.write(
            lambda connection: delete_tree(connection, "image", "path", root_id(connection, root), name)
        )

    def flush(self) -> None:
        self._database.flush()

    def close(self) -> None:
        self._database.flush()

    def _purge(self) -> None:
        """Let go of what is too old. Others have their turn in between."""
        now, day = time.time(), SECONDS["day"]
        for step, kept in KEPT.items():
            self._write("DELETE FROM total WHERE step = ? AND start < ?", step, (now - kept) // day * day)
        (images,) = self._database.read(lambda connection: connection.execute("SELECT count(*) FROM image").fetchone())
        oldest = "SELECT rowid FROM image ORDER BY at LIMIT ?"
        for left in range(images - MOST_IMAGES, 0, -_PURGE_BATCH):
            delete = f"DELETE FROM image WHERE rowid IN ({oldest})"  # noqa: S608 - ours
            self._write(delete, min(left, _PURGE_BATCH))

    def _write(self, statement: str, *values: object) -> None:
        self._database.write(lambda connection: connection.execute(statement, values))


def read_history(path: str) -> SqliteHistoryReader:
    """Return the history in the ledger's file, for reading while a service writes it, and while none runs.

    What the service noted shows a second later. Raises ``UnfitError``, as every question may, where there is no such
    file, or where it is damaged, of another version or not for us to read.
    """
    reader = SqliteHistoryReader(ReadOnly(path, SCHEMA.version))
    reader.image("", "")
    return reader


def _failures(connection: sqlite3.Connection, key: int, root: bytes, after: bytes, limit: int) -> list[Event]:
    select = f"""SELECT {_COLUMNS} FROM image INDEXED BY failed
        WHERE root = ? AND result = 'failed' AND path > ? ORDER BY path LIMIT ?"""  # noqa: S608 - the columns are ours
    rows = connection.execute(select, (key, after, limit)).fetchall()
    if rows and rows[-1][0] <= after:  # a damaged tree would be paged through for ever
        raise sqlite3.DatabaseError("paths are out of order")
    return [_event(os.fsdecode(root), row) for row in rows]


def _row(event: Event) -> tuple[object, ...]:
    return (
        os.fsencode(event.path),
        event.size,
        storable(event.mtime_ns),
        event.width,
        event.height,
        event.format,
        event.result.value,
        event.reason,
        to_blob(event.detail),
        event.webp_bytes,
        event.seconds,
        event.fingerprint,
        event.at,
        event.host,
    )


def _event(root: str, row: Sequence[Any]) -> Event:
    path, size, mtime_ns, width, height, format_, result, reason, detail, *rest = row
    path, result, detail = os.fsdecode(path), Result(result), from_blob(detail)
    return Event(root, path, size, mtime_ns, width, height, format_, result, reason, detail, *rest)
