//! Cheaper hours of a table: windows by UTC on days of some calendar, as parts of the week by the clocks of that place.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::Deserialize;

use crate::facts::When;

/// Minutes in a day.
const DAY: i64 = 24 * 60;
/// The days of a week from Monday on, as provider files name them.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// When the prices of litellm's `off_peak_pricing` hold: its members without the prices.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OffPeak {
    /// On every day.
    #[serde(default)]
    hours_utc: Windows,
    #[serde(default)]
    windows: Vec<Rule>,
    weekday_timezone: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    hours_utc: Windows,
    weekdays: Option<Vec<Weekday>>,
}

/// `16:30-00:30`, or a list of such; equal ends are a whole day.
#[derive(Deserialize)]
#[serde(untagged)]
enum Windows {
    One(String),
    Many(Vec<String>),
}

impl Default for Windows {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// From 1 for Monday on, or a name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Weekday {
    Number(usize),
    Name(String),
}

impl OffPeak {
    /// The parts of the week that it means, as they are from `day` on; none where that cannot be
    /// written: the place changes its clocks, or something is no time, no day or no place.
    pub(crate) fn parts(&self, day: &str) -> Option<Vec<When>> {
        let zone = self.weekday_timezone.as_deref();
        let offset = zone.map_or(Some(0), |zone| offset_minutes(zone, day))?;
        let mut parts = Vec::new();
        let daily = (&self.hours_utc, None);
        let rules = self
            .windows
            .iter()
            .map(|rule| (&rule.hours_utc, rule.weekdays.as_deref()));
        for (windows, weekdays) in std::iter::once(daily).chain(rules) {
            let days = weekdays.map_or(Some(Vec::new()), days)?;
            for (from, to) in local(windows, offset)? {
                let whole = (from, to) == (0, DAY);
                parts.push(When {
                    hours: (!whole).then(|| (clock(from), clock(to % DAY))),
                    // Every day of the week, where nothing else is said.
                    days: if whole && days.is_empty() {
                        DAYS.to_vec()
                    } else {
                        days.clone()
                    },
                    zone: zone.map(str::to_owned),
                });
            }
        }
        Some(parts).filter(|parts| !parts.is_empty())
    }
}

/// How far a place's clocks are before UTC, where they are never changed after `day`.
fn offset_minutes(zone: &str, day: &str) -> Option<i64> {
    let zone = TimeZone::get(zone).ok()?;
    let day: Date = day.parse().ok()?;
    let begun: Timestamp = day.to_zoned(TimeZone::UTC).ok()?.timestamp();
    if zone.following(begun).next().is_some() {
        return None;
    }
    let seconds = i64::from(zone.to_offset(begun).seconds());
    (seconds % 60 == 0).then_some(seconds / 60)
}

/// The windows by clocks that are so many minutes before UTC, none over midnight: the table takes
/// the day of each moment, and a part of the week the day that it begins on.
fn local(windows: &Windows, offset: i64) -> Option<Vec<(i64, i64)>> {
    let texts = match windows {
        Windows::One(text) => std::slice::from_ref(text),
        Windows::Many(texts) => texts,
    };
    let mut parts = Vec::new();
    for text in texts {
        let (from, to) = text.split_once('-')?;
        let (from, to) = (minute(from)?, minute(to)?);
        let length = (to - from - 1).rem_euclid(DAY) + 1;
        let from = (from + offset).rem_euclid(DAY);
        parts.push((from, (from + length).min(DAY)));
        if from + length > DAY {
            parts.push((0, from + length - DAY));
        }
    }
    parts.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for (from, to) in parts {
        match joined.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            Some(_) | None => joined.push((from, to)),
        }
    }
    Some(joined)
}

fn minute(text: &str) -> Option<i64> {
    let (hour, minute) = text.trim().split_once(':')?;
    let below = |text: &str, limit: i64| text.parse().ok().filter(|n| (0..limit).contains(n));
    Some(below(hour, 24)? * 60 + below(minute, 60)?)
}

fn clock(minute: i64) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

fn days(weekdays: &[Weekday]) -> Option<Vec<&'static str>> {
    let mut found = BTreeMap::new();
    for weekday in weekdays {
        let place = match weekday {
            Weekday::Number(number) => number.checked_sub(1)?,
            Weekday::Name(name) => {
                let name = name.trim().to_ascii_lowercase();
                DAYS.iter().position(|day| name.starts_with(day))?
            }
        };
        found.insert(place, *DAYS.get(place)?);
    }
    Some(found.into_values().collect::<Vec<_>>()).filter(|days| !days.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(json: &str) -> Option<Vec<String>> {
        let read: OffPeak = serde_json::from_str(json).ok()?;
        let parts = read.parts("2026-11-22")?;
        Some(parts.iter().map(When::text).collect())
    }

    #[test]
    fn windows_are_by_utc_and_days_by_their_calendar() {
        let windows = r#""windows":[{"hours_utc":["00:00-01:00","04:00-06:00","10:00-00:00"],"weekdays":[1,2,3,4,5]},
            {"hours_utc":"00:00-00:00","weekdays":["sat","Sunday"]}]"#;
        let working = r#"days = ["mon", "tue", "wed", "thu", "fri"]"#;
        let weekend = r#"days = ["sat", "sun"]"#;
        assert_eq!(
            parts(&format!("{{{windows}}}")).unwrap(),
            [
                format!(r#"from = "00:00", to = "01:00", {working}"#),
                format!(r#"from = "04:00", to = "06:00", {working}"#),
                format!(r#"from = "10:00", to = "00:00", {working}"#),
                weekend.to_owned(),
            ]
        );
        // What is eight hours later by the clocks there: the windows around midnight are one.
        let there = r#", time_zone = "Asia/Shanghai""#;
        assert_eq!(
            parts(&format!(
                r#"{{"weekday_timezone":"Asia/Shanghai",{windows}}}"#
            ))
            .unwrap(),
            [
                format!(r#"from = "00:00", to = "09:00", {working}{there}"#),
                format!(r#"from = "12:00", to = "14:00", {working}{there}"#),
                format!(r#"from = "18:00", to = "00:00", {working}{there}"#),
                format!("{weekend}{there}"),
            ]
        );
    }

    #[test]
    fn every_day_is_every_day() {
        assert_eq!(
            parts(r#"{"hours_utc":"16:30-00:30"}"#).unwrap(),
            [
                r#"from = "00:00", to = "00:30""#,
                r#"from = "16:30", to = "00:00""#
            ]
        );
        assert_eq!(
            parts(r#"{"hours_utc":["07:00-07:00"]}"#).unwrap(),
            [r#"days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]"#]
        );
    }

    #[test]
    fn what_cannot_be_written_is_none() {
        for json in [
            "{}",
            r#"{"hours_utc":"16:30"}"#,
            r#"{"hours_utc":"16:30-24:30"}"#,
            r#"{"windows":[{"hours_utc":"01:00-02:00","weekdays":[8]}]}"#,
            r#"{"windows":[{"hours_utc":"01:00-02:00","weekdays":[]}]}"#,
            r#"{"windows":[{"hours_utc":"01:00-02:00","holidays":true}]}"#,
            r#"{"hours_utc":"01:00-02:00","weekday_timezone":"Asia/Nowhere"}"#,
            // There the hours by UTC are other ones in summer.
            r#"{"hours_utc":"01:00-02:00","weekday_timezone":"Europe/Berlin"}"#,
        ] {
            assert_eq!(parts(json), None, "{json}");
        }
    }
}
