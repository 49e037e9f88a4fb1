//! `tollway audit`: the proof of the books, straight from the database, beside a running gateway.

use std::process::ExitCode;

use store::{Audit, Store};

use super::{CommandError, database, print};
use crate::{admin::audit::AuditView, cli::Flags};

pub(super) async fn run(flags: &Flags, as_json: bool) -> Result<ExitCode, CommandError> {
    let (url, options) = database::named_by(flags)?;
    let store = Store::open_read_only(&url, options).await?;
    let audit = store.audit().await?;
    let code = if audit.balanced {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    if as_json {
        let value = serde_json::to_value(AuditView::from(audit)).unwrap_or_default();
        print::json(&value)?;
    } else {
        for line in lines(&audit) {
            print::line(&line)?;
        }
    }
    Ok(code)
}

fn lines(audit: &Audit) -> Vec<String> {
    let mut lines: Vec<String> = audit
        .checks
        .iter()
        .filter(|check| !check.ok)
        .map(|check| {
            let first = match &check.first_broken {
                Some(row) => row.to_string(),
                None => "no row is named".into(),
            };
            format!("off: {}: {} First: {first}", check.name, check.says)
        })
        .collect();
    for (cause, amount) in &audit.house_losses {
        lines.push(format!("house loss: {cause}: {amount}"));
    }
    let rows: u64 = audit.checks.iter().map(|check| check.rows_checked).sum();
    lines.push(if audit.balanced {
        format!("balanced ({} checks, {rows} rows)", audit.checks.len())
    } else {
        format!("not balanced: {} credits are off", audit.imbalance)
    });
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use billing::Credits;
    use store::{BrokenRow, Check};

    use super::*;

    #[test]
    fn what_is_off_is_said() {
        let check = |ok| Check {
            name: "balance",
            says: "The balance is the sum of its ledger.",
            ok,
            rows_checked: 3,
            first_broken: (!ok).then(|| BrokenRow {
                ids: vec!["acct_1".into()],
                note: None,
                has: "2".into(),
                should: "1".into(),
            }),
        };
        let mut audit = Audit {
            balanced: true,
            checks: vec![check(true)],
            house_losses: BTreeMap::new(),
            imbalance: Credits::ZERO,
        };
        assert_eq!(lines(&audit), ["balanced (1 checks, 3 rows)"]);
        audit.balanced = false;
        audit.checks = vec![check(false)];
        audit.imbalance = Credits::from_nanos(1);
        assert_eq!(
            lines(&audit),
            [
                "off: balance: The balance is the sum of its ledger. First: acct_1: 2, should be 1",
                "not balanced: 0.000000001 credits are off"
            ]
        );
    }
}
