-- Credits set aside for work that outlives every process. migrations/postgres has the same tables under the same names.

-- One row for each hold that stands in the database: a batch's, from before its provider is asked
-- until its results are paid for. What it has set aside are leases under its own id, as if it were
-- a replica. It is no ledger row; it goes when the hold ends.
CREATE TABLE standing_holds (
    account_id BLOB    NOT NULL,
    id         BLOB    NOT NULL,
    key_id     BLOB    NOT NULL,
    -- When somebody last looked what became of the work.
    looked_at  INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, id)
) STRICT;
CREATE INDEX standing_holds_looked ON standing_holds (looked_at);

-- What a batch may cost is set aside now, and no longer only looked at.
ALTER TABLE owned_objects DROP COLUMN expected;
