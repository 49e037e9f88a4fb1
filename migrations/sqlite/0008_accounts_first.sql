-- The account leads the key of every table that grows, and every look-up on the way of a request names it.
-- migrations/postgres has the same tables under the same names.

CREATE TABLE budgets_after (
    id         BLOB    NOT NULL,
    account_id BLOB    NOT NULL REFERENCES accounts (id),
    kind       TEXT    NOT NULL CHECK (kind IN ('account', 'key')),
    available  INTEGER NOT NULL,
    floor      INTEGER NOT NULL CHECK (floor <= 0),
    leased     INTEGER NOT NULL CHECK (leased >= 0),
    spent      INTEGER NOT NULL CHECK (spent >= 0),
    debt       INTEGER NOT NULL CHECK (debt >= 0),
    PRIMARY KEY (account_id, id),
    CONSTRAINT never_below_the_floor CHECK (kind <> 'account' OR available >= floor),
    -- The row of an account has its own id twice.
    CONSTRAINT an_account_is_its_own CHECK ((kind = 'account') = (id = account_id))
) STRICT;
INSERT INTO budgets_after (id, account_id, kind, available, floor, leased, spent, debt)
SELECT id, account_id, kind, available, floor, leased, spent, debt FROM budgets;

CREATE TABLE leases_after (
    account_id BLOB    NOT NULL,
    budget_id  BLOB    NOT NULL,
    replica_id BLOB    NOT NULL,
    amount     INTEGER NOT NULL CHECK (amount >= 0),
    -- Of the amount, what was set aside for running requests at the last heartbeat.
    held       INTEGER NOT NULL CHECK (held >= 0),
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, budget_id, replica_id)
) STRICT;
-- A lease without a budget is for the audit to find.
INSERT INTO leases_after (account_id, budget_id, replica_id, amount, held, updated_at)
SELECT COALESCE(b.account_id, l.budget_id), l.budget_id, l.replica_id, l.amount, l.held, l.updated_at
FROM leases l LEFT JOIN budgets b ON b.id = l.budget_id;

DROP TABLE leases;
ALTER TABLE leases_after RENAME TO leases;
-- All leases of a replica, when it ends.
CREATE INDEX leases_replica ON leases (replica_id);
DROP TABLE budgets;
ALTER TABLE budgets_after RENAME TO budgets;

CREATE TABLE dead_settlements_after (
    request_id BLOB    NOT NULL,
    account_id BLOB    NOT NULL,
    problem    TEXT    NOT NULL,
    settlement TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, request_id)
) STRICT;
INSERT INTO dead_settlements_after (request_id, account_id, problem, settlement, created_at)
SELECT request_id, account_id, problem, settlement, created_at FROM dead_settlements;
-- Its guards go with it.
DROP TABLE dead_settlements;
ALTER TABLE dead_settlements_after RENAME TO dead_settlements;
-- Operators name a request, and not its account.
CREATE INDEX dead_settlements_request ON dead_settlements (request_id);
CREATE TRIGGER dead_settlements_no_update BEFORE UPDATE ON dead_settlements
BEGIN
    SELECT RAISE(ABORT, 'rows of dead_settlements are immutable');
END;
CREATE TRIGGER dead_settlements_no_delete BEFORE DELETE ON dead_settlements
BEGIN
    SELECT RAISE(ABORT, 'rows of dead_settlements are immutable');
END;

-- Of a key whose lease is called back.
ALTER TABLE changes ADD COLUMN account_id BLOB;
