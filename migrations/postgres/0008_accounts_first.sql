-- The account leads the key of every table that grows, and every look-up on the way of a request names it:
-- rows can be placed by account_id. migrations/sqlite has the same tables under the same names.
SET LOCAL statement_timeout = 0;

-- A gateway of the version before could not write into these tables any more, and what it has not
-- written would be lost. So it has to be stopped first; one that was killed counts as running for as long as
-- its leases live. The lock waits for whoever is about to say that it is alive.
LOCK TABLE replicas IN SHARE ROW EXCLUSIVE MODE;
DO $$
DECLARE
    running text;
BEGIN
    SELECT string_agg(host || ' since ' || to_timestamp(started_at / 1000000), ', ' ORDER BY started_at)
    FROM replicas
    WHERE state = 'alive' AND heartbeat_at > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - ttl
    INTO running;
    IF running IS NOT NULL THEN
        RAISE EXCEPTION 'gateways of an older version use this database (%): stop them all before this upgrade', running
            USING ERRCODE = 'object_in_use';
    END IF;
END
$$;

-- The row of an account has its own id twice.
ALTER TABLE budgets
    DROP CONSTRAINT budgets_pkey,
    ADD PRIMARY KEY (account_id, id),
    ADD CONSTRAINT an_account_is_its_own CHECK ((kind = 'account') = (id = account_id));

ALTER TABLE leases RENAME TO leases_before;
ALTER INDEX leases_pkey RENAME TO leases_before_pkey;
ALTER INDEX leases_replica RENAME TO leases_before_replica;
CREATE TABLE leases (
    account_id uuid   NOT NULL,
    budget_id  uuid   NOT NULL,
    replica_id uuid   NOT NULL,
    amount     bigint NOT NULL CHECK (amount >= 0),
    -- Of the amount, what was set aside for running requests at the last heartbeat.
    held       bigint NOT NULL CHECK (held >= 0),
    updated_at bigint NOT NULL,
    PRIMARY KEY (account_id, budget_id, replica_id)
) WITH (fillfactor = 50);
-- A lease without a budget is for the audit to find.
INSERT INTO leases (account_id, budget_id, replica_id, amount, held, updated_at)
SELECT COALESCE(b.account_id, l.budget_id), l.budget_id, l.replica_id, l.amount, l.held, l.updated_at
FROM leases_before l LEFT JOIN budgets b ON b.id = l.budget_id;
DROP TABLE leases_before;
-- All leases of a replica, when it ends.
CREATE INDEX leases_replica ON leases (replica_id);

ALTER TABLE dead_settlements
    DROP CONSTRAINT dead_settlements_pkey,
    ADD PRIMARY KEY (account_id, request_id);
-- Operators name a request, and not its account.
CREATE INDEX dead_settlements_request ON dead_settlements (request_id);

-- Of a key whose lease is called back.
ALTER TABLE changes ADD COLUMN account_id uuid;
