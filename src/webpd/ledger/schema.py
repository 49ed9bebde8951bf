"""The SQLite file of the ledger and the history: its tables, and how paths and texts are put into them."""

import os
import sqlite3
import time

from webpd.ledger.database import Schema

# Since version 3.
_PASS_TABLE = """\
CREATE TABLE pass (
    root INTEGER PRIMARY KEY,
    ended REAL NOT NULL,
    full_ended REAL,
    directories INTEGER NOT NULL,
    unsettled INTEGER NOT NULL,
    images INTEGER NOT NULL,
    orphans INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    failed INTEGER NOT NULL
)"""  # noqa: S105 - no secret

# What the ledger's totals() and results() answer is kept up to date by triggers: counting 600,000 rows would take too
# long. Statements end at empty lines.
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

CREATE TABLE image (
    root INTEGER NOT NULL,
    path BLOB NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    format TEXT NOT NULL,
    result TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail BLOB NOT NULL,
    webp_bytes INTEGER NOT NULL,
    seconds REAL NOT NULL,
    fingerprint BLOB NOT NULL,
    at REAL NOT NULL,
    host TEXT NOT NULL,
    UNIQUE (root, path)
)

CREATE INDEX aged ON image (at)

CREATE INDEX failed ON image (root, path) WHERE result = 'failed'

CREATE TABLE total (
    step TEXT NOT NULL,
    start INTEGER NOT NULL,
    result TEXT NOT NULL,
    images INTEGER NOT NULL,
    source_bytes INTEGER NOT NULL,
    webp_bytes INTEGER NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (step, start, result)
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


def _forget_clock(connection: sqlite3.Connection) -> None:
    """Readings of the monotonic clock mean nothing after a boot: looks count as long ago, orphans as just seen."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    if connection.execute("SELECT id FROM boot").fetchall() != [(boot,)]:
        connection.execute("UPDATE directory SET looked = 0 WHERE looked <> 0")
        connection.execute("UPDATE directory SET orphaned = ? WHERE orphans > 0", (time.monotonic(),))
        connection.execute("DELETE FROM boot")
        connection.execute("INSERT INTO boot VALUES (?)", (boot,))


# Raise the version with any change above, and say how a database of the version before becomes one of this: the history
# in it can't be had again.
SCHEMA = Schema(
    version=3,
    tables=(*_TABLES.split("\n\n"), _PASS_TABLE),
    upgrades={2: (_PASS_TABLE,)},
    opened=_forget_clock,
    doubt="UPDATE directory SET mtime_ns = NULL WHERE mtime_ns IS NOT NULL",
)


def root_id(connection: sqlite3.Connection, root: str) -> int | None:
    """Return the key of the root, None where nothing is remembered of it."""
    row = connection.execute("SELECT id FROM root WHERE path = ?", (os.fsencode(root),)).fetchone()
    return row[0] if row else None


def add_root(connection: sqlite3.Connection, root: str) -> int:
    """Return the key of the root, a new one where it had none."""
    key = root_id(connection, root)
    if key is None:
        key = connection.execute("INSERT INTO root (path) VALUES (?)", (os.fsencode(root),)).lastrowid
    return key or 0


def delete_tree(connection: sqlite3.Connection, table: str, column: str, key: int | None, path: bytes) -> None:
    """Delete the rows of that root whose ``column`` is ``path`` ("" is the root) or below it."""
    delete = f"DELETE FROM {table} WHERE root = ? AND {column}"  # noqa: S608 - the names are ours
    if not path:
        connection.execute(f"{delete} >= x''", (key,))
        return
    connection.execute(f"{delete} = ?", (key, path))
    # What is below "a" lies between "a/" and "a0": the byte after "/" is "0". One statement with OR would not use the
    # index.
    connection.execute(f"{delete} >= ? AND {column} < ?", (key, path + b"/", path + b"0"))


def storable(number: int) -> int:
    """Return it, or the nearest that SQLite can hold: a file of the year 2263 is then only looked at again."""
    return max(-(2**63), min(number, 2**63 - 1))


def to_blob(text: str) -> bytes:
    """Return the text, which may hold any code point, for storing."""
    return text.encode("utf-8", "surrogatepass")


def from_blob(blob: bytes) -> str:
    """Return what ``to_blob`` was given."""
    return bytes.decode(blob, "utf-8", "surrogatepass")
