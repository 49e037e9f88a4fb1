-- A month that is long over can be closed: exported, summed up in rows that stay, and its charges deleted.
-- Balances do not change by that: an entry of kind closing takes the place of the charges.
-- migrations/postgres has the same tables under the same names; there a month is a partition.

-- Months that are closed, or being closed.
CREATE TABLE closed_months (
    -- Such as 2026-08, UTC.
    month         TEXT    PRIMARY KEY NOT NULL CHECK (length(month) = 7),
    -- Ids of the month: from the first one, and below the last.
    first_id      BLOB    NOT NULL UNIQUE,
    end_id        BLOB    NOT NULL CHECK (end_id > first_id),
    -- closing: settlements of the month are put aside from now on. dropping: its charges are being
    -- removed, seen by nobody but that transaction. closed: they are gone.
    state         TEXT    NOT NULL CHECK (state IN ('closing', 'dropping', 'closed')),
    -- What the closings of the month must add up to.
    requests      INTEGER CHECK (requests >= 0),
    cost          INTEGER CHECK (cost >= 0),
    charged       INTEGER CHECK (charged >= 0),
    house_loss    INTEGER CHECK (house_loss >= 0),
    -- Of the lines of the file that the charges were exported to.
    export_sha256 BLOB    CHECK (length(export_sha256) = 32),
    since         INTEGER NOT NULL,
    CHECK (state <> 'closed' OR (requests IS NOT NULL AND cost IS NOT NULL AND charged IS NOT NULL
        AND house_loss IS NOT NULL AND export_sha256 IS NOT NULL))
) STRICT;

-- What is kept of the charges of a closed month. Together with the charges they are what was spent.
CREATE TABLE closings (
    account_id       BLOB    NOT NULL,
    key_id           BLOB    NOT NULL,
    month            TEXT    NOT NULL,
    model            TEXT    NOT NULL,
    provider         TEXT    NOT NULL,
    ended            TEXT    NOT NULL,
    requests         INTEGER NOT NULL CHECK (requests > 0),
    cost             INTEGER NOT NULL CHECK (cost >= 0),
    charged          INTEGER NOT NULL CHECK (charged >= 0),
    house_loss       INTEGER NOT NULL CHECK (house_loss >= 0),
    -- Of the house loss, that of charges whose lease had been taken back before they were booked.
    late_loss        INTEGER NOT NULL CHECK (late_loss BETWEEN 0 AND house_loss),
    prompt           INTEGER NOT NULL,
    cached_prompt    INTEGER NOT NULL,
    cache_write_5m   INTEGER NOT NULL,
    cache_write_1h   INTEGER NOT NULL,
    audio_prompt     INTEGER NOT NULL,
    image_prompt     INTEGER NOT NULL,
    completion       INTEGER NOT NULL,
    reasoning        INTEGER NOT NULL,
    audio_completion INTEGER NOT NULL,
    PRIMARY KEY (account_id, key_id, month, model, provider, ended),
    CHECK (charged + house_loss = cost)
) STRICT;
CREATE INDEX closings_month ON closings (month);

-- What the operator decided about settlements that had been put aside.
CREATE TABLE resolutions (
    account_id  BLOB    NOT NULL,
    request_id  BLOB    NOT NULL,
    resolved_as TEXT    NOT NULL CHECK (resolved_as IN ('charge', 'house_loss', 'drop')),
    -- Taken from the account: by a charge of this request, or given back where it is negative.
    charged     INTEGER NOT NULL,
    -- Borne by the operator beside that charge.
    house_loss  INTEGER NOT NULL CHECK (house_loss >= 0),
    note        TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (account_id, request_id)
) STRICT;

-- Charges may be deleted by the closing of their month and by nothing else.
DROP TRIGGER charges_no_delete;
CREATE TRIGGER charges_no_delete BEFORE DELETE ON charges
WHEN NOT EXISTS (SELECT 1 FROM closed_months m WHERE m.state = 'dropping'
    AND OLD.id >= m.first_id AND OLD.id < m.end_id)
BEGIN
    SELECT RAISE(ABORT, 'rows of charges are immutable');
END;
CREATE TRIGGER closed_months_no_update BEFORE UPDATE ON closed_months
WHEN OLD.state = 'closed'
BEGIN
    SELECT RAISE(ABORT, 'rows of closed_months are immutable');
END;
CREATE TRIGGER closed_months_no_delete BEFORE DELETE ON closed_months
WHEN OLD.state <> 'closing'
BEGIN
    SELECT RAISE(ABORT, 'rows of closed_months are immutable');
END;
CREATE TRIGGER closings_no_update BEFORE UPDATE ON closings
BEGIN
    SELECT RAISE(ABORT, 'rows of closings are immutable');
END;
CREATE TRIGGER closings_no_delete BEFORE DELETE ON closings
BEGIN
    SELECT RAISE(ABORT, 'rows of closings are immutable');
END;
CREATE TRIGGER resolutions_no_update BEFORE UPDATE ON resolutions
BEGIN
    SELECT RAISE(ABORT, 'rows of resolutions are immutable');
END;
CREATE TRIGGER resolutions_no_delete BEFORE DELETE ON resolutions
BEGIN
    SELECT RAISE(ABORT, 'rows of resolutions are immutable');
END;
CREATE TRIGGER dead_settlements_no_update BEFORE UPDATE ON dead_settlements
BEGIN
    SELECT RAISE(ABORT, 'rows of dead_settlements are immutable');
END;
CREATE TRIGGER dead_settlements_no_delete BEFORE DELETE ON dead_settlements
BEGIN
    SELECT RAISE(ABORT, 'rows of dead_settlements are immutable');
END;
