-- Requests that may be repeated without a second effect. migrations/postgres has the same tables under the same names.

-- One row for each Idempotency-Key of an account, from its first request until it expires. The
-- row is a claim: whoever inserts it runs the request. It is no ledger row and is deleted in time.
CREATE TABLE idempotent_requests (
    account_id      BLOB    NOT NULL,
    idempotency_key TEXT    NOT NULL,
    -- HMAC of method, path, key and body under the instance's pepper.
    request_hash    BLOB    NOT NULL,
    -- The request that runs or ran, and the replica that it runs on.
    request_id      BLOB    NOT NULL,
    replica_id      BLOB    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('running', 'answered', 'not_kept')),
    stream          INTEGER NOT NULL,
    -- The lowered output limit that the answer's header named.
    max_tokens      INTEGER,
    body            BLOB,
    body_bytes      INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    PRIMARY KEY (account_id, idempotency_key),
    CHECK ((state = 'answered') = (body IS NOT NULL))
) STRICT;
CREATE INDEX idempotent_requests_expiring ON idempotent_requests (expires_at);

-- Requests of replicas that were taken for dead and whose key somebody else has claimed since:
-- should one of them settle after all, the operator bears it.
CREATE TABLE superseded_requests (
    account_id BLOB    NOT NULL,
    id         BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, id)
) STRICT;

-- A repeated call that made a key finds it again.
ALTER TABLE keys ADD COLUMN idempotency_key TEXT;
ALTER TABLE keys ADD COLUMN request_hash BLOB;
CREATE UNIQUE INDEX keys_idempotency ON keys (idempotency_key);
