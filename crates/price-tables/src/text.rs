//! A price as provider files write it.

use std::fmt::Write as _;

use crate::{facts::Price, model::Model};

impl Model {
    /// Its price as TOML: `price`, `price_tiers` and `service_tiers`, each where there is one.
    #[must_use]
    pub fn price_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "price = {}", price(&self.price));
        if !self.tiers.is_empty() {
            text.push_str("price_tiers = [\n");
            for (above, amounts) in &self.tiers {
                let _ = writeln!(text, "    {},", tier(*above, amounts));
            }
            text.push_str("]\n");
        }
        for (name, (amounts, tiers)) in &self.service {
            let _ = write!(text, "service_tiers.{name} = {{ price = {}", price(amounts));
            if !tiers.is_empty() {
                let tiers: Vec<_> = tiers.iter().map(|(above, p)| tier(*above, p)).collect();
                let _ = write!(text, ", price_tiers = [{}]", tiers.join(", "));
            }
            text.push_str(" }\n");
        }
        text
    }
}

fn tier(above: u64, amounts: &Price) -> String {
    let price = price(amounts);
    format!("{{ above_prompt_tokens = {above}, whole_request = true, price = {price} }}")
}

fn price(price: &Price) -> String {
    let members: Vec<String> = price
        .iter()
        .map(|(kind, amount)| format!("{} = \"{amount}\"", kind.member()))
        .collect();
    format!("{{ {} }}", members.join(", "))
}
