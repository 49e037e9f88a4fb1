//! What must hold of the books, each rule as a query for the rows that break it.

/// What the two figures of a broken row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Nano-credits.
    Credits,
    /// A number of rows.
    Rows,
}

/// Which databases a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    Both,
    Postgres,
    Sqlite,
}

/// An invariant in SQL: which rows it looks at, and which of them break it.
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) says: &'static str,
    pub(super) on: On,
    pub(super) unit: Unit,
    /// What the two ids of a broken row are: prefixes. A second id equal to the first is not named.
    pub(super) ids: [&'static str; 2],
    /// How many rows there are to look at.
    pub(super) counts: &'static str,
    /// The rows that break it: `a`, `b` (ids or null), `note` (or null), `has`, `should`.
    pub(super) broken: &'static str,
}

/// `available + leased` of an account against its ledger; also the sum of the differences.
pub(super) const BALANCES: &str = "SELECT b.id, b.available + b.leased AS has, \
     COALESCE(e.total, 0) - COALESCE(c.total, 0) AS should FROM budgets b \
     LEFT JOIN (SELECT account_id, CAST(SUM(amount) AS bigint) AS total \
                FROM entries GROUP BY account_id) e ON e.account_id = b.account_id \
     LEFT JOIN (SELECT account_id, CAST(SUM(charged) AS bigint) AS total \
                FROM charges GROUP BY account_id) c ON c.account_id = b.account_id \
     WHERE b.kind = 'account'";

const ACCOUNTS: &str = "SELECT COUNT(*) FROM budgets WHERE kind = 'account'";
const BUDGETS: &str = "SELECT COUNT(*) FROM budgets";
const CHARGES: &str = "SELECT COUNT(*) FROM charges";
const ACCOUNT: [&str; 2] = ["acct", ""];
/// The row of an account has its own id twice.
const BUDGET: [&str; 2] = ["acct", "key"];
const REQUEST: [&str; 2] = ["acct", "req"];

/// The rules, in the order of the proof.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "balance",
        says: "an account's credit is the sum of its entries less the sum of its charges",
        on: On::Both,
        unit: Unit::Credits,
        ids: ACCOUNT,
        counts: ACCOUNTS,
        broken: "SELECT id AS a, {no_id} AS b, {no_note} AS note, has, should \
            FROM ({balances}) AS x WHERE has <> should",
    },
    Rule {
        name: "leases",
        says: "what is leased of a budget, taken less returned, is the sum of its leases",
        on: On::Both,
        unit: Unit::Credits,
        ids: BUDGET,
        counts: BUDGETS,
        broken: "SELECT b.account_id AS a, b.id AS b, {no_note} AS note, b.leased AS has, \
                COALESCE(l.total, 0) AS should FROM budgets b \
            LEFT JOIN (SELECT account_id, budget_id, CAST(SUM(amount) AS bigint) AS total \
                       FROM leases GROUP BY account_id, budget_id) l \
              ON l.account_id = b.account_id AND l.budget_id = b.id \
            WHERE b.leased <> COALESCE(l.total, 0)",
    },
    Rule {
        name: "grants",
        says: "what remains of an account's grants, less its debt, is its credit",
        on: On::Both,
        unit: Unit::Credits,
        ids: ACCOUNT,
        counts: ACCOUNTS,
        broken: "SELECT b.id AS a, {no_id} AS b, {no_note} AS note, \
                COALESCE(g.total, 0) - b.debt AS has, b.available + b.leased AS should \
            FROM budgets b \
            LEFT JOIN (SELECT account_id, CAST(SUM(remaining) AS bigint) AS total \
                       FROM grants GROUP BY account_id) g ON g.account_id = b.account_id \
            WHERE b.kind = 'account' AND b.available + b.leased <> COALESCE(g.total, 0) - b.debt",
    },
    Rule {
        name: "grants_have_entries",
        says: "every grant was made by an entry of its amount, and no more remains of it",
        on: On::Both,
        unit: Unit::Credits,
        ids: ["acct", "ent"],
        counts: "SELECT COUNT(*) FROM grants",
        broken: "SELECT g.account_id AS a, g.id AS b, {no_note} AS note, g.amount AS has, \
                COALESCE(e.amount, 0) AS should FROM grants g \
            LEFT JOIN entries e ON e.account_id = g.account_id AND e.id = g.id \
            WHERE e.amount IS NULL OR e.amount <> g.amount \
               OR g.remaining < 0 OR g.remaining > g.amount",
    },
    Rule {
        name: "spent",
        says: "what the journal took from a budget is the sum of what its charges and closings took",
        on: On::Both,
        unit: Unit::Credits,
        ids: BUDGET,
        counts: BUDGETS,
        broken: "SELECT b.account_id AS a, b.id AS b, {no_note} AS note, b.spent AS has, \
                COALESCE(c.total, 0) AS should FROM budgets b \
            LEFT JOIN (SELECT account_id, id, CAST(SUM(charged) AS bigint) AS total FROM (\
                         SELECT account_id, account_id AS id, SUM(charged) AS charged \
                           FROM charges GROUP BY account_id \
                         UNION ALL SELECT account_id, key_id AS id, SUM(charged) AS charged \
                           FROM charges GROUP BY account_id, key_id \
                         UNION ALL SELECT account_id, account_id AS id, charged FROM closings \
                         UNION ALL SELECT account_id, key_id AS id, charged FROM closings) AS x \
                       GROUP BY account_id, id) c ON c.account_id = b.account_id AND c.id = b.id \
            WHERE b.spent <> COALESCE(c.total, 0)",
    },
    Rule {
        name: "floors",
        says: "no account is below its overdraft",
        on: On::Both,
        unit: Unit::Credits,
        ids: ACCOUNT,
        counts: ACCOUNTS,
        broken: "SELECT b.id AS a, {no_id} AS b, {no_note} AS note, \
                CASE WHEN b.floor <> -a.overdraft THEN b.floor ELSE b.available END AS has, \
                -a.overdraft AS should FROM budgets b JOIN accounts a ON a.id = b.account_id \
            WHERE b.kind = 'account' AND (b.available < -a.overdraft OR b.floor <> -a.overdraft)",
    },
    Rule {
        name: "key_limits",
        says: "what a key has left, leased and spent together is its limit",
        on: On::Both,
        unit: Unit::Credits,
        ids: BUDGET,
        counts: "SELECT COUNT(*) FROM keys",
        broken: "SELECT k.account_id AS a, k.id AS b, {no_note} AS note, \
                COALESCE(b.available + b.leased + b.spent, 0) AS has, \
                COALESCE(k.limit_credits, 0) AS should FROM keys k \
            LEFT JOIN budgets b ON b.account_id = k.account_id AND b.id = k.id \
            WHERE b.id IS NULL \
               OR b.available + b.leased + b.spent <> COALESCE(k.limit_credits, 0) \
            UNION ALL SELECT b.account_id, b.id, 'no such key', \
                b.available + b.leased + b.spent, 0 FROM budgets b \
            LEFT JOIN keys k ON k.account_id = b.account_id AND k.id = b.id \
            WHERE b.kind = 'key' AND k.id IS NULL",
    },
    Rule {
        name: "charges_split",
        says: "what a request cost was taken from its account or borne by the operator",
        on: On::Both,
        unit: Unit::Credits,
        ids: REQUEST,
        counts: CHARGES,
        broken: "SELECT account_id AS a, id AS b, {no_note} AS note, \
                charged + house_loss AS has, cost AS should FROM charges \
            WHERE charged + house_loss <> cost OR charged < 0 OR house_loss < 0",
    },
    Rule {
        name: "one_charge_a_request",
        says: "no request was charged twice",
        on: On::Both,
        unit: Unit::Rows,
        ids: ["req", ""],
        counts: CHARGES,
        broken: "SELECT id AS a, {no_id} AS b, {no_note} AS note, COUNT(*) AS has, \
                CAST(1 AS bigint) AS should FROM charges GROUP BY id HAVING COUNT(*) > 1",
    },
    Rule {
        name: "one_entry_a_payment",
        says: "no call with an idempotency key was booked twice",
        on: On::Both,
        unit: Unit::Rows,
        ids: ACCOUNT,
        counts: "SELECT COUNT(*) FROM entries",
        broken: "SELECT account_id AS a, {no_id} AS b, idempotency_key AS note, COUNT(*) AS has, \
                CAST(1 AS bigint) AS should FROM entries WHERE idempotency_key IS NOT NULL \
            GROUP BY account_id, idempotency_key HAVING COUNT(*) > 1",
    },
    Rule {
        name: "late_losses_have_charges",
        says: "every difference found late belongs to a charge, or to a month that is closed",
        on: On::Both,
        unit: Unit::Credits,
        ids: REQUEST,
        counts: "SELECT (SELECT COUNT(*) FROM house_losses) \
            + (SELECT COUNT(*) FROM entries WHERE kind = 'late_charge')",
        broken: "SELECT h.account_id AS a, h.id AS b, {no_note} AS note, h.amount AS has, \
                CAST(0 AS bigint) AS should FROM (\
               SELECT account_id, id, amount FROM house_losses \
               UNION ALL \
               SELECT account_id, id, -amount FROM entries WHERE kind = 'late_charge') AS h \
            LEFT JOIN charges c ON c.account_id = h.account_id AND c.id = h.id \
            WHERE c.id IS NULL AND NOT EXISTS (SELECT 1 FROM closed_months m \
               WHERE m.state = 'closed' AND h.id >= m.first_id AND h.id < m.end_id)",
    },
    Rule {
        name: "closings",
        says: "the sums kept of a closed month are those of its export",
        on: On::Both,
        unit: Unit::Credits,
        ids: ["", ""],
        counts: "SELECT COUNT(*) FROM closings",
        broken: "SELECT {no_id} AS a, {no_id} AS b, x.note, CAST(SUM(x.has) AS bigint) AS has, \
                CAST(SUM(x.should) AS bigint) AS should FROM (\
               SELECT month || ' charged' AS note, 0 AS has, charged AS should \
                 FROM closed_months WHERE state = 'closed' \
               UNION ALL SELECT month || ' house loss', 0, house_loss \
                 FROM closed_months WHERE state = 'closed' \
               UNION ALL SELECT month || ' charged', charged, 0 FROM closings \
               UNION ALL SELECT month || ' house loss', house_loss, 0 FROM closings) AS x \
            GROUP BY x.note HAVING SUM(x.has) <> SUM(x.should)",
    },
    Rule {
        name: "closings_counted",
        says: "as many requests are kept of a closed month as were exported",
        on: On::Both,
        unit: Unit::Rows,
        ids: ["", ""],
        counts: "SELECT COUNT(*) FROM closed_months",
        broken: "SELECT {no_id} AS a, {no_id} AS b, x.month AS note, \
                CAST(SUM(x.has) AS bigint) AS has, CAST(SUM(x.should) AS bigint) AS should FROM (\
               SELECT month, 0 AS has, requests AS should FROM closed_months \
                 WHERE state = 'closed' \
               UNION ALL SELECT month, requests, 0 FROM closings) AS x \
            GROUP BY x.month HAVING SUM(x.has) <> SUM(x.should)",
    },
    Rule {
        name: "closing_entries",
        says: "the entry that took the place of an account's charges is the sum of its closings",
        on: On::Both,
        unit: Unit::Credits,
        ids: ACCOUNT,
        counts: "SELECT COUNT(*) FROM entries WHERE kind = 'closing'",
        // 'charges of 2026-08'
        broken: "SELECT x.account_id AS a, {no_id} AS b, x.note, \
                CAST(SUM(x.has) AS bigint) AS has, CAST(SUM(x.should) AS bigint) AS should FROM (\
               SELECT account_id, substr(reference, 12) AS note, -amount AS has, 0 AS should \
                 FROM entries WHERE kind = 'closing' \
               UNION ALL SELECT account_id, month, 0, charged FROM closings) AS x \
            GROUP BY x.account_id, x.note HAVING SUM(x.has) <> SUM(x.should)",
    },
    Rule {
        name: "closed_months_are_empty",
        says: "a closed month has no charges but those that were resolved by hand",
        on: On::Both,
        unit: Unit::Credits,
        ids: REQUEST,
        counts: "SELECT COUNT(*) FROM closed_months",
        broken: "SELECT c.account_id AS a, c.id AS b, m.month AS note, c.cost AS has, \
                CAST(0 AS bigint) AS should FROM closed_months m \
            JOIN charges c ON c.id >= m.first_id AND c.id < m.end_id \
            LEFT JOIN resolutions r ON r.account_id = c.account_id AND r.request_id = c.id \
               AND r.resolved_as = 'charge' \
            WHERE m.state = 'closed' AND r.request_id IS NULL",
    },
    Rule {
        name: "no_dead_leases",
        says: "no lease outlives its replica while another one could take it back; standing holds have theirs",
        on: On::Both,
        unit: Unit::Credits,
        ids: ["budget", "rep"],
        counts: "SELECT COUNT(*) FROM leases",
        broken: "SELECT l.budget_id AS a, l.replica_id AS b, {no_note} AS note, l.amount AS has, \
                CAST(0 AS bigint) AS should \
            FROM leases l LEFT JOIN replicas r ON r.id = l.replica_id \
            WHERE l.amount > 0 AND l.replica_id NOT IN (SELECT id FROM standing_holds) \
              AND (r.id IS NULL OR r.state <> 'alive' \
               OR (r.heartbeat_at < {now} - r.ttl - 60000000 \
                   AND EXISTS (SELECT 1 FROM replicas o \
                               WHERE o.state = 'alive' AND o.heartbeat_at > {now} - o.ttl)))",
    },
    Rule {
        name: "no_lost_requests",
        says: "no request waits for a replica that has ended",
        on: On::Both,
        unit: Unit::Credits,
        ids: REQUEST,
        counts: "SELECT COUNT(*) FROM checkpoints",
        broken: "SELECT c.account_id AS a, c.request_id AS b, {no_note} AS note, c.cost AS has, \
                CAST(0 AS bigint) AS should FROM checkpoints c \
            LEFT JOIN replicas r ON r.id = c.replica_id \
            WHERE r.id IS NULL OR r.state <> 'alive'",
    },
    Rule {
        name: "no_orphans",
        says: "every row belongs to an account that is there",
        on: On::Both,
        unit: Unit::Rows,
        ids: ACCOUNT,
        counts: "SELECT COUNT(*) FROM accounts",
        broken: "SELECT x.id AS a, {no_id} AS b, x.note, x.n AS has, CAST(0 AS bigint) AS should \
            FROM (\
               SELECT account_id, account_id AS id, 'entries' AS note, COUNT(*) AS n \
                 FROM entries GROUP BY account_id \
               UNION ALL SELECT account_id, account_id, 'charges', COUNT(*) \
                 FROM charges GROUP BY account_id \
               UNION ALL SELECT account_id, account_id, 'closings', COUNT(*) \
                 FROM closings GROUP BY account_id \
               UNION ALL SELECT account_id, account_id, 'grants', COUNT(*) \
                 FROM grants GROUP BY account_id \
               UNION ALL SELECT account_id, account_id, 'keys', COUNT(*) \
                 FROM keys GROUP BY account_id \
               UNION ALL SELECT account_id, account_id, 'house_losses', COUNT(*) \
                 FROM house_losses GROUP BY account_id \
               UNION ALL SELECT id, id, 'accounts', COUNT(*) FROM accounts GROUP BY id \
               UNION ALL SELECT account_id, budget_id, 'leases', COUNT(*) \
                 FROM leases GROUP BY account_id, budget_id) AS x \
            LEFT JOIN budgets b ON b.account_id = x.account_id AND b.id = x.id \
            WHERE b.id IS NULL",
    },
    Rule {
        name: "keys_of_accounts",
        says: "every request was paid by the account of its key",
        on: On::Both,
        unit: Unit::Rows,
        ids: ["acct", "key"],
        counts: CHARGES,
        broken: "SELECT x.account_id AS a, x.key_id AS b, x.note, x.n AS has, \
                CAST(0 AS bigint) AS should FROM (\
               SELECT account_id, key_id, 'charges' AS note, COUNT(*) AS n \
                 FROM charges GROUP BY account_id, key_id \
               UNION ALL SELECT account_id, key_id, 'closings', COUNT(*) \
                 FROM closings GROUP BY account_id, key_id) AS x \
            LEFT JOIN budgets b ON b.account_id = x.account_id AND b.id = x.key_id \
               AND b.kind = 'key' \
            WHERE b.id IS NULL",
    },
    Rule {
        name: "resolutions",
        says: "every decision is about a settlement that was put aside, and was carried out",
        on: On::Both,
        unit: Unit::Credits,
        ids: REQUEST,
        counts: "SELECT COUNT(*) FROM resolutions",
        broken: "SELECT r.account_id AS a, r.request_id AS b, r.resolved_as AS note, \
                CAST(0 AS bigint) AS has, r.charged + r.house_loss AS should FROM resolutions r \
            LEFT JOIN dead_settlements d ON d.account_id = r.account_id \
               AND d.request_id = r.request_id \
            LEFT JOIN charges c ON c.account_id = r.account_id AND c.id = r.request_id \
            WHERE d.request_id IS NULL OR (r.resolved_as = 'charge' AND c.id IS NULL \
               AND NOT EXISTS (SELECT 1 FROM closed_months m WHERE m.state = 'closed' \
                  AND r.request_id >= m.first_id AND r.request_id < m.end_id))",
    },
    Rule {
        name: "no_dead_settlements",
        says: "no settlement that was put aside waits for a decision",
        on: On::Both,
        unit: Unit::Rows,
        ids: REQUEST,
        counts: "SELECT COUNT(*) FROM dead_settlements",
        broken: "SELECT d.account_id AS a, d.request_id AS b, d.problem AS note, \
                CAST(1 AS bigint) AS has, CAST(0 AS bigint) AS should FROM dead_settlements d \
            LEFT JOIN resolutions r ON r.account_id = d.account_id \
               AND r.request_id = d.request_id \
            WHERE r.request_id IS NULL",
    },
    Rule {
        name: "partitions",
        says: "every charge is in the partition of its month",
        on: On::Postgres,
        unit: Unit::Rows,
        ids: REQUEST,
        counts: "SELECT COUNT(*) FROM pg_inherits WHERE inhparent = 'charges'::regclass",
        broken: PARTITIONS,
    },
    Rule {
        name: "guards",
        says: "what keeps rows of the ledger from being changed is in force",
        on: On::Postgres,
        unit: Unit::Rows,
        ids: ["", ""],
        counts: "SELECT COUNT(*) FROM pg_trigger WHERE tgname IN ('immutable', 'no_truncate')",
        broken: POSTGRES_GUARDS,
    },
    Rule {
        name: "guards",
        says: "what keeps rows of the ledger from being changed is in force",
        on: On::Sqlite,
        unit: Unit::Rows,
        ids: ["", ""],
        counts: "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'trigger'",
        broken: SQLITE_GUARDS,
    },
];

/// Charges in the partition of the rest although their month has come and is not closed, and
/// partitions that do not take exactly their month.
const PARTITIONS: &str = "SELECT o.account_id AS a, o.id AS b, 'in charges_other' AS note, \
       CAST(1 AS bigint) AS has, CAST(0 AS bigint) AS should FROM charges_other o \
     WHERE o.id < charges_first_id((date_trunc('month', now() AT TIME ZONE 'UTC') \
             + interval '1 month')::date) \
       AND o.id >= (SELECT charges_first_id(to_date(substr(MIN(CAST(c.relname AS text)), 9), 'YYYY_MM')) \
             FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
             WHERE i.inhparent = 'charges'::regclass AND c.relname <> 'charges_other') \
       AND NOT EXISTS (SELECT 1 FROM closed_months m \
             WHERE o.id >= m.first_id AND o.id < m.end_id) \
     UNION ALL \
     SELECT CAST(NULL AS uuid), CAST(NULL AS uuid), CAST(c.relname AS text), 0, 1 \
     FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
     WHERE i.inhparent = 'charges'::regclass AND c.relname <> 'charges_other' \
       AND pg_get_expr(c.relpartbound, c.oid) <> format('FOR VALUES FROM (%L) TO (%L)', \
             charges_first_id(to_date(substr(c.relname, 9), 'YYYY_MM')), \
             charges_first_id((to_date(substr(c.relname, 9), 'YYYY_MM') \
               + interval '1 month')::date)) \
     UNION ALL \
     SELECT CAST(NULL AS uuid), CAST(NULL AS uuid), 'charges_other is missing', 0, 1 \
     WHERE to_regclass('charges_other') IS NULL";

const POSTGRES_GUARDS: &str = "SELECT CAST(NULL AS uuid) AS a, CAST(NULL AS uuid) AS b, \
       w.relation || ' ' || w.guard AS note, CAST(0 AS bigint) AS has, CAST(1 AS bigint) AS should \
     FROM (SELECT relation, guard FROM (\
             SELECT unnest(ARRAY['entries', 'charges', 'house_losses', 'prices', \
               'closed_months', 'closings', 'resolutions', 'dead_settlements']) AS relation \
             UNION ALL SELECT CAST(inhrelid::regclass AS text) \
               FROM pg_inherits WHERE inhparent = 'charges'::regclass) AS r \
           CROSS JOIN unnest(ARRAY['immutable', 'no_truncate']) AS guard) AS w \
     LEFT JOIN pg_trigger t ON t.tgrelid = to_regclass(w.relation) AND t.tgname = w.guard \
       AND t.tgenabled IN ('O', 'A') \
     WHERE t.oid IS NULL";

const SQLITE_GUARDS: &str = "SELECT CAST(NULL AS uuid) AS a, CAST(NULL AS uuid) AS b, \
       w.relation || '_no_' || g.guard AS note, 0 AS has, 1 AS should \
     FROM (SELECT 'entries' AS relation UNION ALL SELECT 'charges' UNION ALL \
           SELECT 'house_losses' UNION ALL SELECT 'prices' UNION ALL SELECT 'closed_months' \
           UNION ALL SELECT 'closings' UNION ALL SELECT 'resolutions' \
           UNION ALL SELECT 'dead_settlements') AS w \
     CROSS JOIN (SELECT 'update' AS guard UNION ALL SELECT 'delete') AS g \
     LEFT JOIN sqlite_schema t ON t.type = 'trigger' AND t.tbl_name = w.relation \
       AND t.name = w.relation || '_no_' || g.guard \
     WHERE t.name IS NULL";
