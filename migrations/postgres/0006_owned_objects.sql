-- What customers have made at providers. migrations/sqlite has the same tables under the same names.

-- A row for each file, batch or other object that a key has made with the operator's account at a
-- provider: nobody but that key may reach it. It is no ledger row; it goes when the object goes.
CREATE TABLE owned_objects (
    account_id uuid   NOT NULL,
    key_id     uuid   NOT NULL,
    id         uuid   NOT NULL,
    provider   text   NOT NULL,
    -- What the provider calls it.
    object_id  text   NOT NULL,
    kind       text   NOT NULL CHECK (kind IN ('file', 'batch', 'other')),
    -- What the provider said of it last, as JSON.
    about      text,
    -- Of a batch's results: the batch, when they began to be charged, and when every request in
    -- them was.
    made_by    text,
    paying_at  bigint,
    paid_at    bigint,
    -- Of a batch: the model that its requests are to, and what they may cost at most until its
    -- results are paid for.
    model      text,
    expected   bigint,
    created_at bigint NOT NULL,
    PRIMARY KEY (account_id, key_id, id),
    CHECK (paid_at IS NULL OR made_by IS NOT NULL)
);
-- An object has one owner. This is also how somebody else's object is found out.
CREATE UNIQUE INDEX owned_objects_object ON owned_objects (object_id, provider);
