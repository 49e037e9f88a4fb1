-- Charges are partitioned by the month of admission, and a month that is long over can be closed:
-- exported, summed up in rows that stay, and dropped. Balances do not change by that: an entry of kind
-- closing takes the place of the charges.
SET LOCAL statement_timeout = 0;

-- The smallest id of a month: the leading 48 bits of an id are the time of admission in milliseconds.
CREATE FUNCTION charges_first_id(month date) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex(extract(epoch FROM month)::bigint * 1000), 12, '0') || repeat('0', 20))::uuid
$$;

-- Months that are closed, or being closed.
CREATE TABLE closed_months (
    -- Such as 2026-08, UTC.
    month         text   PRIMARY KEY CHECK (length(month) = 7),
    -- Ids of the month: from the first one, and below the last.
    first_id      uuid   NOT NULL UNIQUE,
    end_id        uuid   NOT NULL CHECK (end_id > first_id),
    -- closing: settlements of the month are put aside from now on. dropping: its charges are being
    -- removed, seen by nobody but that transaction. closed: they are gone.
    state         text   NOT NULL CHECK (state IN ('closing', 'dropping', 'closed')),
    -- What the closings of the month must add up to.
    requests      bigint CHECK (requests >= 0),
    cost          bigint CHECK (cost >= 0),
    charged       bigint CHECK (charged >= 0),
    house_loss    bigint CHECK (house_loss >= 0),
    -- Of the lines of the file that the charges were exported to.
    export_sha256 bytea  CHECK (octet_length(export_sha256) = 32),
    since         bigint NOT NULL,
    CHECK (state <> 'closed' OR (requests IS NOT NULL AND cost IS NOT NULL AND charged IS NOT NULL
        AND house_loss IS NOT NULL AND export_sha256 IS NOT NULL))
);

-- What is kept of the charges of a closed month. Together with the charges they are what was spent.
CREATE TABLE closings (
    account_id       uuid   NOT NULL,
    key_id           uuid   NOT NULL,
    month            text   NOT NULL,
    model            text   NOT NULL,
    provider         text   NOT NULL,
    ended            text   NOT NULL,
    requests         bigint NOT NULL CHECK (requests > 0),
    cost             bigint NOT NULL CHECK (cost >= 0),
    charged          bigint NOT NULL CHECK (charged >= 0),
    house_loss       bigint NOT NULL CHECK (house_loss >= 0),
    -- Of the house loss, that of charges whose lease had been taken back before they were booked.
    late_loss        bigint NOT NULL CHECK (late_loss BETWEEN 0 AND house_loss),
    prompt           bigint NOT NULL,
    cached_prompt    bigint NOT NULL,
    cache_write_5m   bigint NOT NULL,
    cache_write_1h   bigint NOT NULL,
    audio_prompt     bigint NOT NULL,
    image_prompt     bigint NOT NULL,
    completion       bigint NOT NULL,
    reasoning        bigint NOT NULL,
    audio_completion bigint NOT NULL,
    PRIMARY KEY (account_id, key_id, month, model, provider, ended),
    CHECK (charged + house_loss = cost)
);
CREATE INDEX closings_month ON closings (month);

-- What the operator decided about settlements that had been put aside.
CREATE TABLE resolutions (
    account_id  uuid   NOT NULL,
    request_id  uuid   NOT NULL,
    resolved_as text   NOT NULL CHECK (resolved_as IN ('charge', 'house_loss', 'drop')),
    -- Taken from the account: by a charge of this request, or given back where it is negative.
    charged     bigint NOT NULL,
    -- Borne by the operator beside that charge.
    house_loss  bigint NOT NULL CHECK (house_loss >= 0),
    note        text   NOT NULL,
    created_at  bigint NOT NULL,
    PRIMARY KEY (account_id, request_id)
);

-- Charges may be deleted by the closing of their month and by nothing else.
CREATE FUNCTION refuse_charge_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND EXISTS (SELECT 1 FROM closed_months m WHERE m.state = 'dropping'
            AND OLD.id >= m.first_id AND OLD.id < m.end_id) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'rows of charges are immutable' USING ERRCODE = 'restrict_violation';
END
$$;

CREATE FUNCTION refuse_month_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'closed' OR (TG_OP = 'DELETE' AND OLD.state <> 'closing') THEN
        RAISE EXCEPTION 'rows of closed_months are immutable' USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END
$$;

ALTER TABLE charges RENAME TO charges_before;
ALTER INDEX charges_pkey RENAME TO charges_before_pkey;
ALTER INDEX charges_time RENAME TO charges_before_time;
ALTER INDEX charges_key RENAME TO charges_before_key;

-- The same columns and checks. The primary key is what makes a settlement have effect once: a request's
-- id decides its partition, so two rows of one request always meet.
CREATE TABLE charges (LIKE charges_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (account_id, id))
    PARTITION BY RANGE (id);
CREATE INDEX charges_time ON charges (id);
CREATE INDEX charges_key ON charges (key_id, id);
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON charges
    FOR EACH ROW EXECUTE FUNCTION refuse_charge_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON charges
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Takes what belongs to no month that is made: nothing is lost by a wrong clock.
CREATE TABLE charges_other PARTITION OF charges DEFAULT;
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON charges_other
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Makes the partition of a month, where it is not there. Attaching lets settlements of other months go
-- on; what came into charges_other before its month was made moves over.
CREATE FUNCTION make_charges_month(month date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    name     text := to_char(month, '"charges_"YYYY_MM');
    first_id uuid := charges_first_id(month);
    end_id   uuid := charges_first_id((month + interval '1 month')::date);
    early    boolean;
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE charges INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    LOCK TABLE charges_other IN ACCESS EXCLUSIVE MODE;
    SELECT EXISTS (SELECT 1 FROM charges_other o WHERE o.id >= first_id AND o.id < end_id) INTO early;
    IF early THEN
        EXECUTE format('INSERT INTO %I SELECT * FROM charges_other o WHERE o.id >= %L AND o.id < %L',
            name, first_id, end_id);
        ALTER TABLE charges_other DISABLE TRIGGER immutable;
        DELETE FROM charges_other o WHERE o.id >= first_id AND o.id < end_id;
        ALTER TABLE charges_other ENABLE TRIGGER immutable;
    END IF;
    EXECUTE format('ALTER TABLE charges ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        name, first_id, end_id);
    EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON %I '
        'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
    RETURN true;
END
$$;

-- The months that have charges, this one and the next two.
SELECT make_charges_month(months.month) FROM (
    SELECT DISTINCT date_trunc('month', to_timestamp(created_at / 1000000) AT TIME ZONE 'UTC')::date AS month
    FROM charges_before
    WHERE created_at BETWEEN (extract(epoch FROM now() - interval '20 years') * 1000000)::bigint
        AND (extract(epoch FROM now() + interval '2 months') * 1000000)::bigint
    UNION
    SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month')::date
    FROM generate_series(0, 2) AS n
) AS months;

INSERT INTO charges SELECT * FROM charges_before;
DROP TABLE charges_before;

CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON closed_months
    FOR EACH ROW EXECUTE FUNCTION refuse_month_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON closings
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON resolutions
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON dead_settlements
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON closed_months
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON closings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON resolutions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON dead_settlements
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON house_losses
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON prices
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
