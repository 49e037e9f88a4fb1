//! The audit finds every way in which the books can be broken, and names the row.

use crate::world::{World, flushed, on_both, quick};

async fn broken_books_are_found(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(1000, Some(500)).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    world.spend(&ledger, &record, 20, 10).await.unwrap();
    world.spend(&ledger, &record, 20, 10).await.unwrap();
    flushed(&ledger).await;
    assert!(ledger.shutdown(std::time::Duration::from_secs(10)).await);
    let audit = world.balanced().await;
    assert!(audit.checks.iter().all(|c| c.first_broken.is_none()));
    assert!(
        audit
            .checks
            .iter()
            .any(|c| c.name == "costs" && c.rows_checked == 2)
    );
    world.raw(UNGUARD[usize::from(world.is_postgres())]).await;

    let account = world.literal(key.account.id.uuid());
    let a_key = world.literal(key.key.id.uuid());
    let other = world.literal(uuid::Uuid::from_u128(77));
    let replica = "(SELECT id FROM replicas LIMIT 1)";
    let one = "(SELECT MIN(id) FROM ids)";
    let one = one.replace(
        "(SELECT MIN(id) FROM ids)",
        "(SELECT id FROM charges ORDER BY id LIMIT 1)",
    );
    let ways = [
        (
            "balance",
            format!("UPDATE budgets SET available = available + 1 WHERE id = {account}"),
            format!("UPDATE budgets SET available = available - 1 WHERE id = {account}"),
        ),
        (
            "leases",
            format!(
                "UPDATE budgets SET leased = leased + 1, available = available - 1 WHERE id = {account}"
            ),
            format!(
                "UPDATE budgets SET leased = leased - 1, available = available + 1 WHERE id = {account}"
            ),
        ),
        (
            "grants",
            "UPDATE grants SET remaining = remaining - 1".into(),
            "UPDATE grants SET remaining = remaining + 1".into(),
        ),
        (
            "grants_have_entries",
            "UPDATE grants SET amount = amount + 5".into(),
            "UPDATE grants SET amount = amount - 5".into(),
        ),
        (
            "balance",
            "UPDATE entries SET amount = amount + 1".into(),
            "UPDATE entries SET amount = amount - 1".into(),
        ),
        (
            "spent",
            format!("UPDATE budgets SET spent = spent + 1 WHERE id = {account}"),
            format!("UPDATE budgets SET spent = spent - 1 WHERE id = {account}"),
        ),
        (
            "floors",
            format!("UPDATE budgets SET floor = -5 WHERE id = {account}"),
            format!("UPDATE budgets SET floor = 0 WHERE id = {account}"),
        ),
        (
            "key_limits",
            format!("UPDATE keys SET limit_credits = limit_credits + 1 WHERE id = {a_key}"),
            format!("UPDATE keys SET limit_credits = limit_credits - 1 WHERE id = {a_key}"),
        ),
        (
            "charges_split",
            format!("UPDATE charges SET house_loss = house_loss + 1 WHERE id = {one}"),
            format!("UPDATE charges SET house_loss = house_loss - 1 WHERE id = {one}"),
        ),
        (
            "costs",
            format!("UPDATE charges SET completion = completion + 1 WHERE id = {one}"),
            format!("UPDATE charges SET completion = completion - 1 WHERE id = {one}"),
        ),
        (
            "costs",
            format!("UPDATE charges SET price_id = {other} WHERE id = {one}"),
            "UPDATE charges SET price_id = (SELECT id FROM prices)".into(),
        ),
        (
            "one_charge_a_request",
            format!(
                "UPDATE charges SET account_id = {account}; \
            INSERT INTO charges SELECT * FROM charges WHERE id = {one}"
            )
            .replace("INSERT INTO charges SELECT *", &copy(&other)),
            format!("DELETE FROM charges WHERE account_id = {other}"),
        ),
        (
            "late_losses_have_charges",
            format!("INSERT INTO house_losses VALUES ({account}, {other}, 'x', 1, 1)"),
            "DELETE FROM house_losses".into(),
        ),
        (
            "no_dead_leases",
            format!("INSERT INTO leases VALUES ({account}, {replica}, 1, 0, 1)"),
            "DELETE FROM leases".into(),
        ),
        (
            "no_orphans",
            format!("INSERT INTO leases VALUES ({other}, {replica}, 0, 0, 1)"),
            "DELETE FROM leases".into(),
        ),
        (
            "no_dead_settlements",
            format!("INSERT INTO dead_settlements VALUES ({other}, {account}, 'p', 's', 1)"),
            "DELETE FROM dead_settlements".into(),
        ),
    ];
    for (name, break_it, mend_it) in ways {
        world.raw(&break_it).await;
        let audit = world.store.audit().await.unwrap();
        assert!(!audit.balanced, "{name}: {break_it}");
        let check = audit.checks.iter().find(|c| c.name == name).unwrap();
        let row = check
            .first_broken
            .as_deref()
            .unwrap_or_else(|| panic!("{break_it}: {:#?}", audit.checks));
        assert!(
            row.len() > 32 && row.as_bytes()[..32].iter().all(u8::is_ascii_hexdigit),
            "{row}"
        );
        if name == "balance" {
            assert_eq!(audit.imbalance.nanos(), 1);
        }
        world.raw(&mend_it).await;
        world.balanced().await;
    }
}

/// The same row for another account.
fn copy(account: &str) -> String {
    const REST: &str = "id, key_id, endpoint, model, provider, price_id, stream, ended, cost, charged, \
        house_loss, source, prompt, cached_prompt, cache_write_5m, cache_write_1h, audio_prompt, \
        image_prompt, completion, reasoning, audio_completion, raw_usage, first_token_us, \
        duration_us, late, created_at, settled_at";
    format!("INSERT INTO charges (account_id, {REST}) SELECT {account}, {REST}")
}

/// Takes away what keeps the books from being broken.
const UNGUARD: [&str; 2] = [
    "DROP TRIGGER entries_no_update; DROP TRIGGER charges_no_update; DROP TRIGGER charges_no_delete; \
     DROP TRIGGER house_losses_no_delete; PRAGMA writable_schema = ON; \
     UPDATE sqlite_schema SET sql = replace(sql, ',
    CHECK (charged + house_loss = cost)', '') WHERE name = 'charges'; PRAGMA writable_schema = OFF;",
    "DROP TRIGGER immutable ON entries; DROP TRIGGER immutable ON charges; \
     DROP TRIGGER immutable ON house_losses; \
     ALTER TABLE charges DROP CONSTRAINT charges_check;",
];

on_both!(broken_books_are_found);
