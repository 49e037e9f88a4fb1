//! Large batches and long lists of grants: what is written in pieces, or read in part, is right as a whole.

use billing::rules::EntryKind;
use store::{LedgerOptions, NewCredits};

use crate::world::{World, flushed, hold_from, n, on_both, settlement, soon};

on_both!(many_settlements_at_once, a_batch_that_uses_up_many_grants,);

/// More than two statements' worth of rows, and not a round number.
async fn many_settlements_at_once(world: World) {
    const MANY: i64 = 300;
    let key = world.key(MANY * 7, None).await;
    let ledger = world.ledger(LedgerOptions::default()).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&ledger, &record.path, n(MANY * 7), soon())
        .await
        .unwrap();
    let ready: Vec<_> = (0..MANY)
        .map(|_| {
            let facts = world.facts(&record);
            let permit = ledger.reserve().unwrap();
            (permit, settlement(&facts, held.replica(), 7, 0))
        })
        .collect();
    for (permit, settlement) in ready {
        permit.send(settlement);
    }
    held.spend(n(MANY * 7));
    flushed(&ledger).await;
    assert_eq!(world.number("SELECT COUNT(*) FROM charges").await, MANY);
    let texts = "SELECT COUNT(*) FROM charges WHERE endpoint = 'chat.completions' \
         AND model = 'm' AND raw_usage = '{\"total_tokens\":1}' AND first_token_us = 10 \
         AND completion = 7 AND charged = 7 AND stream AND NOT late";
    assert_eq!(world.number(texts).await, MANY);
    assert_eq!(world.total(record.account_id).await, 0);
    world.balanced().await;
}

async fn a_batch_that_uses_up_many_grants(world: World) {
    const GRANTS: i64 = 50;
    let key = world.key(10, None).await;
    let ledger = world.ledger(LedgerOptions::default()).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    for _ in 1..GRANTS {
        let credits = NewCredits {
            amount: n(10),
            kind: EntryKind::Promo,
            expires_at: None,
            reference: None,
            note: None,
        };
        let added = world.store.add_credits(record.account_id, credits, None);
        added.await.unwrap();
    }
    let with_a_rest = "SELECT COUNT(*) FROM grants WHERE remaining > 0";
    let mut left = GRANTS * 10;
    // Within the first grants, across more than are read at first, and to the last nano-credit.
    for amount in [15, 300, 160, 25] {
        let held = hold_from(&ledger, &record.path, n(amount), soon())
            .await
            .unwrap();
        let facts = world.facts(&record);
        let permit = ledger.reserve().unwrap();
        permit.send(settlement(&facts, held.replica(), amount, 0));
        held.spend(n(amount));
        flushed(&ledger).await;
        left -= amount;
        let grants = (left + 9) / 10;
        assert_eq!(world.number(with_a_rest).await, grants, "after {amount}");
        assert_eq!(
            world
                .number("SELECT CAST(SUM(debt) AS bigint) FROM budgets")
                .await,
            0
        );
        world.balanced().await;
    }
    assert_eq!(world.total(record.account_id).await, 0);
}
