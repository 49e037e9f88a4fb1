-- The ledger. Amounts are nano-credits, times are microseconds since 1970-01-01 UTC by this server's clock.
-- migrations/sqlite has the same tables under the same names.

CREATE TABLE instance (
    id               smallint PRIMARY KEY CHECK (id = 1),
    pepper           bytea    NOT NULL CHECK (octet_length(pepper) = 32),
    admin_key_digest bytea,
    demo_key_id      uuid,
    created_at       bigint   NOT NULL
);

CREATE TABLE accounts (
    id         uuid    PRIMARY KEY,
    name       text    NOT NULL,
    overdraft  bigint  NOT NULL CHECK (overdraft >= 0),
    disabled   boolean NOT NULL,
    metadata   text    NOT NULL,
    created_at bigint  NOT NULL,
    updated_at bigint  NOT NULL
);

CREATE TABLE keys (
    id            uuid   PRIMARY KEY,
    account_id    uuid   NOT NULL REFERENCES accounts (id),
    name          text   NOT NULL,
    digest        bytea  NOT NULL UNIQUE,
    prefix        text   NOT NULL,
    limit_credits bigint CHECK (limit_credits >= 0),
    models        text,
    expires_at    bigint,
    revoked_at    bigint,
    metadata      text   NOT NULL,
    created_at    bigint NOT NULL,
    updated_at    bigint NOT NULL
);
CREATE INDEX keys_account ON keys (account_id, id);

-- One row per account and one per key, under their ids. An account's row is the lock of
-- everything that belongs to the account. Pages are left half empty, so that an update stays on
-- its page and touches no index.
CREATE TABLE budgets (
    id         uuid   PRIMARY KEY,
    account_id uuid   NOT NULL REFERENCES accounts (id),
    kind       text   NOT NULL CHECK (kind IN ('account', 'key')),
    available  bigint NOT NULL,
    floor      bigint NOT NULL CHECK (floor <= 0),
    leased     bigint NOT NULL CHECK (leased >= 0),
    spent      bigint NOT NULL CHECK (spent >= 0),
    debt       bigint NOT NULL CHECK (debt >= 0),
    CONSTRAINT never_below_the_floor CHECK (kind <> 'account' OR available >= floor)
) WITH (fillfactor = 50);

CREATE TABLE replicas (
    id           uuid   PRIMARY KEY,
    state        text   NOT NULL CHECK (state IN ('alive', 'closed', 'reaped')),
    heartbeat_at bigint NOT NULL,
    -- The newest batch of the journal that was committed.
    last_batch   bigint NOT NULL,
    ttl          bigint NOT NULL,
    host         text   NOT NULL,
    started_at   bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX replicas_alive ON replicas (id) WHERE state = 'alive';

CREATE TABLE leases (
    budget_id  uuid   NOT NULL,
    replica_id uuid   NOT NULL,
    amount     bigint NOT NULL CHECK (amount >= 0),
    -- Of the amount, what was set aside for running requests at the last heartbeat.
    held       bigint NOT NULL CHECK (held >= 0),
    updated_at bigint NOT NULL,
    PRIMARY KEY (budget_id, replica_id)
) WITH (fillfactor = 50);
CREATE INDEX leases_replica ON leases (replica_id);

CREATE TABLE grants (
    account_id uuid   NOT NULL REFERENCES accounts (id),
    id         uuid   NOT NULL,
    kind       text   NOT NULL,
    amount     bigint NOT NULL CHECK (amount > 0),
    remaining  bigint NOT NULL,
    expires_at bigint,
    created_at bigint NOT NULL,
    PRIMARY KEY (account_id, id),
    CHECK (remaining BETWEEN 0 AND amount)
) WITH (fillfactor = 50);
CREATE INDEX grants_left ON grants (account_id) WHERE remaining > 0;
CREATE INDEX grants_expiring ON grants (expires_at) WHERE remaining > 0 AND expires_at IS NOT NULL;

CREATE TABLE entries (
    account_id      uuid   NOT NULL REFERENCES accounts (id),
    id              uuid   NOT NULL,
    kind            text   NOT NULL,
    amount          bigint NOT NULL CHECK (amount <> 0),
    grant_id        uuid,
    reference       text,
    note            text,
    idempotency_key text,
    request_hash    bytea,
    created_at      bigint NOT NULL,
    PRIMARY KEY (account_id, id),
    UNIQUE (account_id, idempotency_key)
);

CREATE TABLE prices (
    id         uuid   PRIMARY KEY,
    provider   text   NOT NULL,
    model      text   NOT NULL,
    price      text   NOT NULL,
    created_at bigint NOT NULL
);

-- What was taken for each request. Together with the entries these rows are the ledger.
-- The tables of the hot path have no foreign keys: their rows are written under the lock of the
-- account's budget, which has one, and the audit looks for orphans.
CREATE TABLE charges (
    account_id       uuid    NOT NULL,
    id               uuid    NOT NULL,
    key_id           uuid    NOT NULL,
    endpoint         text    NOT NULL,
    model            text    NOT NULL,
    provider         text    NOT NULL,
    price_id         uuid    NOT NULL,
    stream           boolean NOT NULL,
    ended            text    NOT NULL,
    cost             bigint  NOT NULL CHECK (cost >= 0),
    charged          bigint  NOT NULL CHECK (charged >= 0),
    house_loss       bigint  NOT NULL CHECK (house_loss >= 0),
    source           text    NOT NULL,
    prompt           bigint  NOT NULL,
    cached_prompt    bigint  NOT NULL,
    cache_write_5m   bigint  NOT NULL,
    cache_write_1h   bigint  NOT NULL,
    audio_prompt     bigint  NOT NULL,
    image_prompt     bigint  NOT NULL,
    completion       bigint  NOT NULL,
    reasoning        bigint  NOT NULL,
    audio_completion bigint  NOT NULL,
    raw_usage        text,
    first_token_us   bigint,
    duration_us      bigint  NOT NULL,
    late             boolean NOT NULL,
    created_at       bigint  NOT NULL,
    settled_at       bigint  NOT NULL,
    PRIMARY KEY (account_id, id),
    CHECK (charged + house_loss = cost)
);
CREATE INDEX charges_time ON charges (id);
CREATE INDEX charges_key ON charges (key_id, id);

-- What the operator bears beside the charges: differences that were found after a charge was booked.
CREATE TABLE house_losses (
    account_id uuid   NOT NULL,
    id         uuid   NOT NULL,
    cause      text   NOT NULL,
    amount     bigint NOT NULL CHECK (amount > 0),
    created_at bigint NOT NULL,
    PRIMARY KEY (account_id, id)
);

-- What running requests had consumed when they were last looked at, for the reaper.
CREATE TABLE checkpoints (
    replica_id       uuid    NOT NULL,
    request_id       uuid    NOT NULL,
    account_id       uuid    NOT NULL,
    key_id           uuid    NOT NULL,
    endpoint         text    NOT NULL,
    model            text    NOT NULL,
    provider         text    NOT NULL,
    price_id         uuid    NOT NULL,
    stream           boolean NOT NULL,
    cost             bigint  NOT NULL CHECK (cost >= 0),
    prompt           bigint  NOT NULL,
    cached_prompt    bigint  NOT NULL,
    cache_write_5m   bigint  NOT NULL,
    cache_write_1h   bigint  NOT NULL,
    audio_prompt     bigint  NOT NULL,
    image_prompt     bigint  NOT NULL,
    completion       bigint  NOT NULL,
    reasoning        bigint  NOT NULL,
    audio_completion bigint  NOT NULL,
    updated_at       bigint  NOT NULL,
    PRIMARY KEY (replica_id, request_id)
) WITH (fillfactor = 50);

-- Settlements that no rule and no constraint would take: nothing is lost without a trace, and
-- the audit fails while there are any.
CREATE TABLE dead_settlements (
    request_id uuid   PRIMARY KEY,
    account_id uuid   NOT NULL,
    problem    text   NOT NULL,
    settlement text   NOT NULL,
    created_at bigint NOT NULL
);

-- What other replicas must hear of. Old rows are deleted.
CREATE TABLE changes (
    seq     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind    text   NOT NULL CHECK (kind IN ('key', 'account', 'recall_account', 'recall_key')),
    id      uuid   NOT NULL,
    -- The replica that made it, where it need not hear of it.
    source  uuid,
    at      bigint NOT NULL
);
CREATE INDEX changes_at ON changes (at);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are immutable', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON entries
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON charges
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON house_losses
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON prices
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON charges
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
