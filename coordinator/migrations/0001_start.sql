-- What the coordinator must remember. Times are Unix milliseconds; documents are JSON.
CREATE TABLE sites (
    name          TEXT PRIMARY KEY,
    status        TEXT NOT NULL CHECK (status IN ('invited', 'enrolled', 'revoked')),
    enrolled_at   INTEGER,
    last_seen     INTEGER,
    agent_version TEXT NOT NULL DEFAULT '',
    device        TEXT NOT NULL DEFAULT ''
) STRICT;

-- A token is kept as its hash. A used one keeps the answer, so that a site whose link broke while it
-- enrolled gets the same certificate for the same request, and nobody else gets any.
CREATE TABLE invitations (
    secret_sha256   TEXT PRIMARY KEY,
    site            TEXT NOT NULL REFERENCES sites (name),
    expires_at      INTEGER NOT NULL,
    used_at         INTEGER,
    request_sha256  TEXT,
    certificate_der BLOB
) STRICT;

-- Certificates that open a door: one that is not here, or is revoked here, does not.
CREATE TABLE certificates (
    serial     TEXT PRIMARY KEY,
    identity   TEXT NOT NULL,
    not_after  INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE TABLE runs (
    id         TEXT PRIMARY KEY,
    plan_toml  TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- The journal: the state of a run is the fold of its events.
CREATE TABLE events (
    run_id TEXT NOT NULL REFERENCES runs (id),
    seq    INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    event  TEXT NOT NULL,
    PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;

-- Figures an operator measured and attached to a version of a run.
CREATE TABLE attachments (
    run_id     TEXT NOT NULL REFERENCES runs (id),
    version    INTEGER NOT NULL,
    evaluation TEXT NOT NULL,
    PRIMARY KEY (run_id, version)
) STRICT;
