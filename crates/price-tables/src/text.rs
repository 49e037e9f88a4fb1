//! A price as provider files write it.

use std::fmt::Write as _;

use crate::{
    facts::{Price, When},
    model::Model,
};

impl When {
    /// Its members, as they stand in braces.
    #[must_use]
    pub fn text(&self) -> String {
        let mut members = Vec::new();
        if let Some((from, to)) = &self.hours {
            members.push(format!("from = \"{from}\", to = \"{to}\""));
        }
        if !self.days.is_empty() {
            let days: Vec<String> = self.days.iter().map(|day| format!("\"{day}\"")).collect();
            members.push(format!("days = [{}]", days.join(", ")));
        }
        if let Some(zone) = &self.zone {
            members.push(format!("time_zone = \"{zone}\""));
        }
        members.join(", ")
    }
}

impl Model {
    /// Its price as TOML: `price`, `price_tiers`, `price_hours` and `service_tiers`, each where there is one.
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
        if !self.hours.is_empty() {
            text.push_str("price_hours = [\n");
            for (when, amounts) in &self.hours {
                let _ = writeln!(
                    text,
                    "    {{ {}, price = {} }},",
                    when.text(),
                    price(amounts)
                );
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
