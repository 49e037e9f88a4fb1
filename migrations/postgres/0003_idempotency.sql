-- Requests that may be repeated without a second effect. migrations/sqlite has the same tables under the same names.

-- One row for each Idempotency-Key of an account, from its first request until it expires. The
-- row is a claim: whoever inserts it runs the request. It is no ledger row and is deleted in time.
CREATE TABLE idempotent_requests (
    account_id      uuid    NOT NULL,
    idempotency_key text    NOT NULL,
    -- HMAC of method, path, key and body under the instance's pepper.
    request_hash    bytea   NOT NULL,
    -- The request that runs or ran, and the replica that it runs on.
    request_id      uuid    NOT NULL,
    replica_id      uuid    NOT NULL,
    state           text    NOT NULL CHECK (state IN ('running', 'answered', 'not_kept')),
    stream          boolean NOT NULL,
    -- The lowered output limit that the answer's header named.
    max_tokens      bigint,
    body            bytea,
    body_bytes      bigint  NOT NULL,
    created_at      bigint  NOT NULL,
    expires_at      bigint  NOT NULL,
    PRIMARY KEY (account_id, idempotency_key),
    CHECK ((state = 'answered') = (body IS NOT NULL))
);
CREATE INDEX idempotent_requests_expiring ON idempotent_requests (expires_at);

-- Requests of replicas that were taken for dead and whose key somebody else has claimed since:
-- should one of them settle after all, the operator bears it.
CREATE TABLE superseded_requests (
    account_id uuid   NOT NULL,
    id         uuid   NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (account_id, id)
);

-- A repeated call that made a key finds it again.
ALTER TABLE keys ADD COLUMN idempotency_key text;
ALTER TABLE keys ADD COLUMN request_hash bytea;
CREATE UNIQUE INDEX keys_idempotency ON keys (idempotency_key);
