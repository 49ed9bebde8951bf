-- A database as version 2 of its schema left it: a root of two directories, and what happened to three images.

PRAGMA journal_mode = WAL;

CREATE TABLE boot (id TEXT NOT NULL);

CREATE TABLE root (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,
    kind TEXT,
    directories INTEGER NOT NULL DEFAULT 0,
    unsettled INTEGER NOT NULL DEFAULT 0,
    images INTEGER NOT NULL DEFAULT 0,
    orphans INTEGER NOT NULL DEFAULT 0
);

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
) WITHOUT ROWID;

CREATE INDEX orphaned ON directory (root, orphaned) WHERE orphans > 0;

CREATE INDEX emptied ON directory (root, path) WHERE pruned = 1;

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
) WITHOUT ROWID;

CREATE TABLE tally (
    root INTEGER NOT NULL,
    result TEXT NOT NULL,
    reason TEXT NOT NULL,
    files INTEGER NOT NULL,
    PRIMARY KEY (root, result, reason)
) WITHOUT ROWID;

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
);

CREATE INDEX aged ON image (at);

CREATE INDEX failed ON image (root, path) WHERE result = 'failed';

CREATE TABLE total (
    step TEXT NOT NULL,
    start INTEGER NOT NULL,
    result TEXT NOT NULL,
    images INTEGER NOT NULL,
    source_bytes INTEGER NOT NULL,
    webp_bytes INTEGER NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (step, start, result)
) WITHOUT ROWID;

CREATE TRIGGER directory_added AFTER INSERT ON directory BEGIN
    UPDATE root SET
        directories = directories + 1,
        unsettled = unsettled + (NEW.mtime_ns IS NULL),
        images = images + NEW.images,
        orphans = orphans + NEW.orphans
    WHERE id = NEW.root;
END;

CREATE TRIGGER directory_changed AFTER UPDATE OF mtime_ns, images, orphans ON directory
WHEN (OLD.mtime_ns IS NULL) <> (NEW.mtime_ns IS NULL) OR OLD.images <> NEW.images OR OLD.orphans <> NEW.orphans BEGIN
    UPDATE root SET
        unsettled = unsettled + (NEW.mtime_ns IS NULL) - (OLD.mtime_ns IS NULL),
        images = images + NEW.images - OLD.images,
        orphans = orphans + NEW.orphans - OLD.orphans
    WHERE id = NEW.root;
END;

CREATE TRIGGER directory_removed AFTER DELETE ON directory BEGIN
    UPDATE root SET
        directories = directories - 1,
        unsettled = unsettled - (OLD.mtime_ns IS NULL),
        images = images - OLD.images,
        orphans = orphans - OLD.orphans
    WHERE id = OLD.root;
END;

CREATE TRIGGER known_added AFTER INSERT ON known BEGIN
    INSERT INTO tally VALUES (NEW.root, NEW.result, NEW.reason, 1) ON CONFLICT DO UPDATE SET files = files + 1;
END;

CREATE TRIGGER known_changed AFTER UPDATE OF result, reason ON known
WHEN OLD.result <> NEW.result OR OLD.reason <> NEW.reason BEGIN
    UPDATE tally SET files = files - 1 WHERE root = OLD.root AND result = OLD.result AND reason = OLD.reason;
    INSERT INTO tally VALUES (NEW.root, NEW.result, NEW.reason, 1) ON CONFLICT DO UPDATE SET files = files + 1;
END;

CREATE TRIGGER known_removed AFTER DELETE ON known BEGIN
    UPDATE tally SET files = files - 1 WHERE root = OLD.root AND result = OLD.result AND reason = OLD.reason;
END;

INSERT INTO boot VALUES ('a boot long ago');

INSERT INTO root (path, kind) VALUES (CAST('/srv/resize_cache' AS BLOB), CAST('ext4 /' AS BLOB));

INSERT INTO directory VALUES
    (1, CAST('' AS BLOB), 5, 1, 1.5, 2, 0, 0, 0),
    (1, CAST('a' AS BLOB), NULL, 0, 1.5, 1, 1, 1.5, 0);

INSERT INTO known VALUES
    (1, CAST('a' AS BLOB), CAST('broken.jpg' AS BLOB), 1000, 7, 'absent', x'3132333435363738', 'failed', 'damaged',
        CAST('cut off' AS BLOB));

INSERT INTO image VALUES
    (1, CAST('1.jpg' AS BLOB), 1000, 6, 640, 480, 'jpeg', 'converted', '', x'', 700, 0.25, x'3132333435363738',
        1790000000.5, 'cdn-1'),
    (1, CAST('2.jpg' AS BLOB), 2000, 6, 640, 480, 'jpeg', 'converted', '', x'', 900, 0.25, x'3132333435363738',
        1790000000.5, 'cdn-1'),
    (1, CAST('a/broken.jpg' AS BLOB), 1000, 7, 0, 0, '', 'failed', 'damaged', CAST('cut off' AS BLOB), 0, 0.25,
        x'3132333435363738', 1790000001.5, 'cdn-1');

INSERT INTO total VALUES
    ('day', 1789948800, 'converted', 2, 3000, 1600, 0.5),
    ('day', 1789948800, 'failed', 1, 1000, 0, 0.25);

PRAGMA user_version = 2;
