-- The ledger. Amounts are nano-credits, times are microseconds since 1970-01-01 UTC by the one process that owns the file.
-- migrations/postgres has the same tables under the same names.

CREATE TABLE instance (
    id               INTEGER PRIMARY KEY CHECK (id = 1),
    pepper           BLOB    NOT NULL CHECK (length(pepper) = 32),
    admin_key_digest BLOB,
    demo_key_id      BLOB,
    created_at       INTEGER NOT NULL
) STRICT;

CREATE TABLE accounts (
    id         BLOB    PRIMARY KEY,
    name       TEXT    NOT NULL,
    overdraft  INTEGER NOT NULL CHECK (overdraft >= 0),
    disabled   INTEGER NOT NULL,
    metadata   TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE keys (
    id            BLOB    PRIMARY KEY,
    account_id    BLOB    NOT NULL REFERENCES accounts (id),
    name          TEXT    NOT NULL,
    digest        BLOB    NOT NULL UNIQUE,
    prefix        TEXT    NOT NULL,
    limit_credits INTEGER CHECK (limit_credits >= 0),
    models        TEXT,
    expires_at    INTEGER,
    revoked_at    INTEGER,
    metadata      TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX keys_account ON keys (account_id, id);

-- One row per account and one per key, under their ids. An account's row is the lock of
-- everything that belongs to the account.
CREATE TABLE budgets (
    id         BLOB    PRIMARY KEY,
    account_id BLOB    NOT NULL REFERENCES accounts (id),
    kind       TEXT    NOT NULL CHECK (kind IN ('account', 'key')),
    available  INTEGER NOT NULL,
    floor      INTEGER NOT NULL CHECK (floor <= 0),
    leased     INTEGER NOT NULL CHECK (leased >= 0),
    spent      INTEGER NOT NULL CHECK (spent >= 0),
    debt       INTEGER NOT NULL CHECK (debt >= 0),
    CONSTRAINT never_below_the_floor CHECK (kind <> 'account' OR available >= floor)
) STRICT;

CREATE TABLE replicas (
    id           BLOB    PRIMARY KEY,
    state        TEXT    NOT NULL CHECK (state IN ('alive', 'closed', 'reaped')),
    heartbeat_at INTEGER NOT NULL,
    -- The newest batch of the journal that was committed.
    last_batch   INTEGER NOT NULL,
    ttl          INTEGER NOT NULL,
    host         TEXT    NOT NULL,
    started_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX replicas_alive ON replicas (id) WHERE state = 'alive';

CREATE TABLE leases (
    budget_id  BLOB    NOT NULL,
    replica_id BLOB    NOT NULL,
    amount     INTEGER NOT NULL CHECK (amount >= 0),
    -- Of the amount, what was set aside for running requests at the last heartbeat.
    held       INTEGER NOT NULL CHECK (held >= 0),
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (budget_id, replica_id)
) STRICT;
CREATE INDEX leases_replica ON leases (replica_id);

CREATE TABLE grants (
    account_id BLOB    NOT NULL REFERENCES accounts (id),
    id         BLOB    NOT NULL,
    kind       TEXT    NOT NULL,
    amount     INTEGER NOT NULL CHECK (amount > 0),
    remaining  INTEGER NOT NULL,
    expires_at INTEGER,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, id),
    CHECK (remaining BETWEEN 0 AND amount)
) STRICT;
CREATE INDEX grants_left ON grants (account_id) WHERE remaining > 0;
CREATE INDEX grants_expiring ON grants (expires_at) WHERE remaining > 0 AND expires_at IS NOT NULL;

CREATE TABLE entries (
    account_id      BLOB    NOT NULL REFERENCES accounts (id),
    id              BLOB    NOT NULL,
    kind            TEXT    NOT NULL,
    amount          INTEGER NOT NULL CHECK (amount <> 0),
    grant_id        BLOB,
    reference       TEXT,
    note            TEXT,
    idempotency_key TEXT,
    request_hash    BLOB,
    created_at      INTEGER NOT NULL,
    PRIMARY KEY (account_id, id),
    UNIQUE (account_id, idempotency_key)
) STRICT;

CREATE TABLE prices (
    id         BLOB    PRIMARY KEY,
    provider   TEXT    NOT NULL,
    model      TEXT    NOT NULL,
    price      TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- What was taken for each request. Together with the entries these rows are the ledger.
-- The tables of the hot path have no foreign keys: their rows are written under the lock of the
-- account's budget, which has one, and the audit looks for orphans.
CREATE TABLE charges (
    account_id       BLOB    NOT NULL,
    id               BLOB    NOT NULL,
    key_id           BLOB    NOT NULL,
    endpoint         TEXT    NOT NULL,
    model            TEXT    NOT NULL,
    provider         TEXT    NOT NULL,
    price_id         BLOB    NOT NULL,
    stream           INTEGER NOT NULL,
    ended            TEXT    NOT NULL,
    cost             INTEGER NOT NULL CHECK (cost >= 0),
    charged          INTEGER NOT NULL CHECK (charged >= 0),
    house_loss       INTEGER NOT NULL CHECK (house_loss >= 0),
    source           TEXT    NOT NULL,
    prompt           INTEGER NOT NULL,
    cached_prompt    INTEGER NOT NULL,
    cache_write_5m   INTEGER NOT NULL,
    cache_write_1h   INTEGER NOT NULL,
    audio_prompt     INTEGER NOT NULL,
    image_prompt     INTEGER NOT NULL,
    completion       INTEGER NOT NULL,
    reasoning        INTEGER NOT NULL,
    audio_completion INTEGER NOT NULL,
    raw_usage        TEXT,
    first_token_us   INTEGER,
    duration_us      INTEGER NOT NULL,
    late             INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    settled_at       INTEGER NOT NULL,
    PRIMARY KEY (account_id, id),
    CHECK (charged + house_loss = cost)
) STRICT;
CREATE INDEX charges_time ON charges (id);
CREATE INDEX charges_key ON charges (key_id, id);

-- What the operator bears beside the charges: differences that were found after a charge was booked.
CREATE TABLE house_losses (
    account_id BLOB    NOT NULL,
    id         BLOB    NOT NULL,
    cause      TEXT    NOT NULL,
    amount     INTEGER NOT NULL CHECK (amount > 0),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, id)
) STRICT;

-- What running requests had consumed when they were last looked at, for the reaper.
CREATE TABLE checkpoints (
    replica_id       BLOB    NOT NULL,
    request_id       BLOB    NOT NULL,
    account_id       BLOB    NOT NULL,
    key_id           BLOB    NOT NULL,
    endpoint         TEXT    NOT NULL,
    model            TEXT    NOT NULL,
    provider         TEXT    NOT NULL,
    price_id         BLOB    NOT NULL,
    stream           INTEGER NOT NULL,
    cost             INTEGER NOT NULL CHECK (cost >= 0),
    prompt           INTEGER NOT NULL,
    cached_prompt    INTEGER NOT NULL,
    cache_write_5m   INTEGER NOT NULL,
    cache_write_1h   INTEGER NOT NULL,
    audio_prompt     INTEGER NOT NULL,
    image_prompt     INTEGER NOT NULL,
    completion       INTEGER NOT NULL,
    reasoning        INTEGER NOT NULL,
    audio_completion INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    PRIMARY KEY (replica_id, request_id)
) STRICT;

-- Settlements that no rule and no constraint would take: nothing is lost without a trace, and
-- the audit fails while there are any.
CREATE TABLE dead_settlements (
    request_id BLOB    PRIMARY KEY,
    account_id BLOB    NOT NULL,
    problem    TEXT    NOT NULL,
    settlement TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- What other replicas must hear of. Old rows are deleted.
CREATE TABLE changes (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    kind   TEXT    NOT NULL CHECK (kind IN ('key', 'account', 'recall_account', 'recall_key')),
    id     BLOB    NOT NULL,
    -- The replica that made it, where it need not hear of it.
    source BLOB,
    at     INTEGER NOT NULL
) STRICT;
CREATE INDEX changes_at ON changes (at);

CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries
BEGIN
    SELECT RAISE(ABORT, 'rows of entries are immutable');
END;
CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries
BEGIN
    SELECT RAISE(ABORT, 'rows of entries are immutable');
END;
CREATE TRIGGER charges_no_update BEFORE UPDATE ON charges
BEGIN
    SELECT RAISE(ABORT, 'rows of charges are immutable');
END;
CREATE TRIGGER charges_no_delete BEFORE DELETE ON charges
BEGIN
    SELECT RAISE(ABORT, 'rows of charges are immutable');
END;
CREATE TRIGGER house_losses_no_update BEFORE UPDATE ON house_losses
BEGIN
    SELECT RAISE(ABORT, 'rows of house_losses are immutable');
END;
CREATE TRIGGER house_losses_no_delete BEFORE DELETE ON house_losses
BEGIN
    SELECT RAISE(ABORT, 'rows of house_losses are immutable');
END;
CREATE TRIGGER prices_no_update BEFORE UPDATE ON prices
BEGIN
    SELECT RAISE(ABORT, 'rows of prices are immutable');
END;
CREATE TRIGGER prices_no_delete BEFORE DELETE ON prices
BEGIN
    SELECT RAISE(ABORT, 'rows of prices are immutable');
END;
