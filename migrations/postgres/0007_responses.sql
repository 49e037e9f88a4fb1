-- Responses that clients come back to. migrations/sqlite has the same tables under the same names.

-- One row for each response (`/v1/responses`) that is kept, until it is deleted or expires. It belongs
-- to the key that it was made with. It is no ledger row.
CREATE TABLE kept_responses (
    account_id uuid   NOT NULL,
    -- As clients name it.
    id         text   NOT NULL,
    key_id     uuid   NOT NULL,
    -- What answered, as provider/model. Where the provider keeps the response, it is asked there.
    model      text   NOT NULL,
    -- What a request that goes on with it begins with, and how much of that was thought.
    tokens     bigint NOT NULL,
    thought    bigint NOT NULL,
    -- What the row is reckoned as where those of an account are bounded.
    bytes      bigint NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    -- Where it is kept here: the items that were sent, those of earlier responses included, and the
    -- response, both as JSON.
    input      bytea,
    response   bytea,
    PRIMARY KEY (account_id, id),
    CHECK ((input IS NULL) = (response IS NULL))
);
CREATE INDEX kept_responses_expiring ON kept_responses (expires_at);
-- Sums of an account, and its oldest.
CREATE INDEX kept_responses_sums ON kept_responses (account_id, created_at, bytes);
