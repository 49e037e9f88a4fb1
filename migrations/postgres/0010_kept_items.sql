-- What kept responses said, by the ids of the items. migrations/sqlite has the same tables under the same names.

-- A request may name an item of a response that is kept in place of saying it again: one row for each
-- such item. It goes with its response.
CREATE TABLE kept_items (
    account_id  uuid NOT NULL,
    key_id      uuid NOT NULL,
    id          text NOT NULL,
    response_id text NOT NULL,
    PRIMARY KEY (account_id, key_id, id),
    FOREIGN KEY (account_id, response_id) REFERENCES kept_responses (account_id, id) ON DELETE CASCADE
);
CREATE INDEX kept_items_response ON kept_items (account_id, response_id);
