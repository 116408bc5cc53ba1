-- The newest entry of each site's privacy ledger that a signed statement has shown. A site whose ledger does not have it
-- any more was put back to an older copy, and spends nothing until the newest is back.
CREATE TABLE ledger_heads (
    site    TEXT PRIMARY KEY REFERENCES sites (name),
    counter INTEGER NOT NULL,
    hash    BLOB NOT NULL
) STRICT;
