"""One SQLite file for one process: written in batches, begun anew when damaged, no obstacle when the disk is full.

Others may read it meanwhile.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from webpd.errors import UnfitError

T = TypeVar("T")

# Seconds that a batch stays open: what a killed process may lose.
_BATCH = 1.0

# The files that SQLite keeps for one database in WAL mode.
_FILES = ("", "-wal", "-shm")

# Pages are reused and never given back: the file stays as large as its content once was. Memory-mapped reads would save
# calls, but a file truncated by somebody else would end the process with SIGBUS.
_PRAGMAS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA cell_size_check = ON;
PRAGMA cache_size = -2048;
PRAGMA journal_size_limit = 4194304;
"""

# Primary result codes (sqlite.org/rescode.html) that accuse the disk or another process; all others accuse the content.
_OBSTACLES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)

# Damage also shows as values of a wrong type, and as names in SQLite's own messages that are not UTF-8.
_ERRORS = (sqlite3.DatabaseError, TypeError, ValueError)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database holds.

    ``tables`` are the statements that make it, in its ``version`` (from 1 up). ``upgrades`` are those that make of a
    database of that version one of the next. ``opened`` is called in a transaction each time the database was opened.
    ``doubt`` is the statement to run when a batch was lost and writing works again.
    """

    version: int
    tables: tuple[str, ...]
    upgrades: Mapping[int, tuple[str, ...]]
    opened: Callable[[sqlite3.Connection], None]
    doubt: str


class Source(Protocol):
    """A database that can be asked."""

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` returns; it must not write."""


class Database:
    """The database at ``path``, whose folder belongs to one process at a time. Thread-safe.

    Writes go into an open transaction, where reads see them; it is committed when it is a second old. A database of an
    older version is upgraded where the schema says how. A damaged one, and one of any other version, is set aside as
    ``path.damaged-TIME`` and begun anew, and the call that met the damage is answered from the new one. A batch that
    can't be written is dropped.

    Raises ``UnfitError`` where the folder is used by another process or can't hold a database.
    """

    def __init__(self, path: str, schema: Schema) -> None:
        self._path = path
        self._schema = schema
        self._began: float | None = None
        self._losing = False
        self.fault = ""
        """Why what is written now is lost, "" where it is kept."""
        self.aside = ""
        """Where a damaged database was put that this one has replaced since the start."""
        self._closed = False
        self._changed = threading.Condition()
        self._lock = _lock(os.path.dirname(path))
        try:
            self._connection = self._open()
        except BaseException:
            os.close(self._lock)
            raise
        self._committer = threading.Thread(target=self._commit_in_time, name="ledger", daemon=True)
        self._committer.start()

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` returns; called again where it failed. It must not write."""
        with self._changed:
            self._commit_if_due()
            try:
                return work(self._connection)
            except _ERRORS as error:
                self._fail(error)
            try:
                return work(self._connection)
            except _ERRORS as error:
                self._begin_anew(error)
            return work(self._connection)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Return what ``work`` returns, called inside the open batch; None where it can't be written.

        It is called again where it met damage.
        """
        with self._changed:
            self._commit_if_due()
            try:
                self._begin()
                return work(self._connection)
            except _ERRORS as error:
                if not self._fail(error):
                    return None
            self._begin()
            return work(self._connection)

    def flush(self) -> None:
        """Commit the open batch."""
        with self._changed:
            self._commit()

    def close(self) -> None:
        """Commit the open batch and let go of the file; no other call may follow."""
        with self._changed:
            if self._closed:
                return
            self._commit()
            self._closed = True
            self._changed.notify()
            self._connection.close()
            os.close(self._lock)
        self._committer.join()

    def _begin(self) -> None:
        if self._began is None:
            self._connection.execute("BEGIN IMMEDIATE")
            self._began = time.monotonic()
            self._changed.notify()

    def _commit_if_due(self) -> None:
        if self._began is not None and time.monotonic() - self._began >= _BATCH:
            self._commit()

    def _commit(self) -> None:
        if self._began is None:
            return
        try:
            self._connection.execute("COMMIT")
            self._began = None
            if self._losing:
                self._recover()
        except _ERRORS as error:
            self._fail(error)

    def _commit_in_time(self) -> None:
        with self._changed:
            while not self._closed:
                self._commit_if_due()
                self._changed.wait(None if self._began is None else max(0.0, self._began + _BATCH - time.monotonic()))

    def _recover(self) -> None:
        self._begin()
        self._connection.execute(self._schema.doubt)
        self._connection.execute("COMMIT")
        self._began = None
        self._losing = False
        self.fault = ""
        _log.warning(
            "%s: can be written again; the whole tree is looked at again, and what was done meanwhile is missing from "
            "the history",
            self._path,
        )

    def _fail(self, error: Exception) -> bool:
        """Drop the batch or begin anew, as the error demands; return whether the database is a new one."""
        if isinstance(error, sqlite3.ProgrammingError):
            raise error
        if not _is_obstacle(error):
            self._begin_anew(error)
            return True
        if self._connection.in_transaction:
            with contextlib.suppress(*_ERRORS):  # what is wrong is met again by the next statement
                self._connection.execute("ROLLBACK")
        self._began = None
        if not self._losing:
            self._losing = True
            self.fault = f"can't be written ({error})"
            _log.warning(
                "%s: can't be written (%s): the service goes on, and what it learns and does until there is room and "
                "permission to write is forgotten",
                self._path,
                error,
            )
        return False

    def _begin_anew(self, error: Exception) -> None:
        self._connection.close()
        self._began = None
        self._losing = False
        self.fault = ""
        try:
            self._set_aside(error)
            self._connection = self._connect(self._path)
        except (OSError, *_ERRORS) as obstacle:
            self.fault = f"can't be begun anew ({obstacle}): until the next start a temporary file takes its place"
            _log.warning(
                "%s: can't be begun anew (%s): until the next start its place is taken by a temporary file; make room "
                "and make it writable",
                self._path,
                obstacle,
            )
            self._connection = self._connect("")  # sqlite.org/inmemorydb.html: a temporary database on disk

    def _open(self) -> sqlite3.Connection:
        try:
            try:
                return self._connect(self._path)
            except _ERRORS as error:
                if _is_obstacle(error):
                    raise
                self._set_aside(error)
            return self._connect(self._path)
        except (OSError, *_ERRORS) as error:
            raise _unfit(self._path, error) from error

    def _connect(self, path: str) -> sqlite3.Connection:
        """Open the database, make its tables where it is empty, and prove that it can be written."""
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            statements = self._statements(connection)
            connection.executescript(_PRAGMAS)
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {self._schema.version}")
            self._schema.opened(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _statements(self, connection: sqlite3.Connection) -> list[str]:
        """Return what makes the database one of the schema."""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (entries,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not version and not entries:
            return list(self._schema.tables)
        statements: list[str] = []
        reached = version
        while reached in self._schema.upgrades:
            statements += self._schema.upgrades[reached]
            reached += 1
        if reached != self._schema.version:
            raise sqlite3.DatabaseError(f"schema version {version}, not {self._schema.version}")
        return statements

    def _set_aside(self, error: Exception) -> None:
        """Rename the files of the database, in place of any that were set aside before."""
        folder, name = os.path.split(self._path)
        for old in os.listdir(folder):
            if old.startswith(f"{name}.damaged-"):
                os.unlink(os.path.join(folder, old))
        aside = f"{self._path}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        for suffix in _FILES:
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._path + suffix, aside + suffix)
        self.aside = aside
        _log.warning(
            "%s: damaged or of another version (%s): set aside as %s and begun anew: the history is lost, and the "
            "whole tree is looked at again",
            self._path,
            error,
            aside,
        )


class ReadOnly:
    """The database at ``path``, which belongs to another process or to none. Thread-safe; nothing is written.

    It is opened for each question: so it may be set aside and begun anew in between, and nobody waits for a reader.
    """

    def __init__(self, path: str, version: int) -> None:
        self._path = path
        self._version = version

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` returns, called once, on one state of the database.

        Raises ``UnfitError`` where there is no database, or where it can't be read.
        """
        try:
            with contextlib.closing(self._connect()) as connection:
                connection.execute("BEGIN")
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version == self._version:
                    return work(connection)
        except FileNotFoundError as error:
            raise UnfitError(
                f"{self._path}: nothing is remembered there: run `webpd run` first, or name the folder that it uses by "
                "WEBPD_STATE_DIR (among several hosts, only those that find work remember anything)"
            ) from error
        except (OSError, *_ERRORS) as error:
            if isinstance(error, OSError) or _is_obstacle(error):
                cure = "run this as the user of the service, or as root"
            else:
                cure = "it is damaged; restart the service, which begins it anew, and the history with it"
            what = error.strerror if isinstance(error, OSError) else error
            raise UnfitError(f"{self._path}: can't be read ({what}): {cure}") from error
        raise UnfitError(
            f"{self._path}: is of another version ({version}, not {self._version}): restart the service, so that both "
            "are of one version of webpd"
        )

    def _connect(self) -> sqlite3.Connection:
        os.stat(self._path)
        uri = f"file:{urllib.parse.quote(os.fsencode(self._path))}?mode=ro"
        if not os.path.exists(f"{self._path}-wal"):  # nobody writes: no log has to be made for reading
            uri += "&immutable=1"
        return sqlite3.connect(uri, uri=True, isolation_level=None)


def _is_obstacle(error: Exception) -> bool:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _OBSTACLES


def refuse_taken(folder: str) -> None:
    """Raise ``UnfitError`` where another process has the folder for its databases, or it can't be made or written."""
    os.close(_lock(folder))


def _lock(folder: str) -> int:
    """Make the folder where it is missing, and lock it; the kernel unlocks it when this process ends."""
    path = os.path.join(folder, "lock")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unfit(folder, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise UnfitError(
            f"another webpd runs with this state directory ({folder}): stop it, or give each its own by WEBPD_STATE_DIR"
        ) from error
    except OSError as error:
        os.close(file)
        raise _unfit(path, error) from error
    return file


def _unfit(path: str, error: Exception) -> UnfitError:
    what = error.strerror if isinstance(error, OSError) else error
    return UnfitError(
        f"{path}: can't be kept ({what}): make room and make its folder writable, or name another folder on a local "
        "disk by WEBPD_STATE_DIR"
    )
