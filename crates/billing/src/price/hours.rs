//! Parts of the week that may have prices of their own: times of day, days, and the clock that says so.

use std::fmt;

use jiff::{Timestamp, civil::Weekday, tz::TimeZone};

/// Minutes in a day.
const DAY: u16 = 24 * 60;

/// Days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(u8);

impl Days {
    /// All seven.
    pub const ALL: Self = Self(0b111_1111);
    /// What a file calls them, from Monday on.
    pub const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

    /// The days of these names; `None` where there is none, one twice, or one that is no day.
    #[must_use]
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut days = Self(0);
        for name in names {
            let place = Self::NAMES.iter().position(|known| *known == name)?;
            let bit = 1 << place;
            if days.0 & bit != 0 {
                return None;
            }
            days.0 |= bit;
        }
        Some(days).filter(|days| days.0 != 0)
    }

    /// Their names, from Monday on.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = Self::NAMES.into_iter().enumerate();
        all.filter_map(move |(place, name)| (self.0 & (1 << place) != 0).then_some(name))
    }

    fn has(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }
}

/// A part of the week, by the clock and the calendar of a time zone. What goes over midnight
/// belongs to the day that it begins on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Minutes since midnight.
    from: u16,
    /// Until before this minute; at or before `from`: of the next day.
    to: u16,
    days: Days,
    zone: TimeZone,
}

impl Hours {
    /// From one time of day, written `HH:MM`, until before another, every day by UTC; `None` where
    /// one is no time, or both are the same.
    #[must_use]
    pub fn daily(from: &str, to: &str) -> Option<Self> {
        let (from, to) = (minute(from)?, minute(to)?);
        (from != to).then_some(Self {
            from,
            to,
            ..Self::all_day()
        })
    }

    /// From midnight to midnight, every day by UTC.
    #[must_use]
    pub const fn all_day() -> Self {
        Self {
            from: 0,
            to: 0,
            days: Days::ALL,
            zone: TimeZone::UTC,
        }
    }

    /// Only where it begins on one of these days.
    #[must_use]
    pub fn on(self, days: Days) -> Self {
        Self { days, ..self }
    }

    /// By the clocks of a place, such as `Asia/Shanghai`; `None` where nobody knows it.
    #[must_use]
    pub fn by_the_clocks_of(self, zone: &str) -> Option<Self> {
        let zone = TimeZone::get(zone).ok()?;
        Some(Self { zone, ..self })
    }

    /// Whether a moment lies in it, in seconds since 1970.
    pub(super) fn has(&self, unix_seconds: i64) -> bool {
        let Ok(moment) = Timestamp::from_second(unix_seconds) else {
            return false;
        };
        let local = self.zone.to_datetime(moment);
        let (hour, minute) = (local.hour().unsigned_abs(), local.minute().unsigned_abs());
        let now = u16::from(hour) * 60 + u16::from(minute);
        let today = local.weekday();
        if self.from < self.to {
            return (self.from..self.to).contains(&now) && self.days.has(today);
        }
        if now >= self.from {
            self.days.has(today)
        } else {
            now < self.to && self.days.has(today.previous())
        }
    }
}

/// Such as `18:00-00:00 mon,tue Asia/Shanghai`; what is left out is every hour, every day, UTC.
impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if self.from != self.to {
            let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
            words.push(format!("{}-{}", clock(self.from), clock(self.to)));
        }
        if self.days != Days::ALL || words.is_empty() {
            words.push(self.days.names().collect::<Vec<_>>().join(","));
        }
        if self.zone != TimeZone::UTC {
            words.extend(self.zone.iana_name().map(str::to_owned));
        }
        f.write_str(&words.join(" "))
    }
}

fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let minute = two(hour)?
        .checked_mul(60)?
        .checked_add(two(minute).filter(|m| *m < 60)?)?;
    Some(minute).filter(|minute| *minute < DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    #[track_caller]
    fn check(hours: &Hours, moments: &[(&str, bool)]) {
        for (moment, expected) in moments {
            assert_eq!(hours.has(at(moment)), *expected, "{moment}");
        }
    }

    #[test]
    fn hours_are_times_of_day() {
        assert!(Hours::daily("00:00", "23:59").is_some());
        for (from, to) in [
            ("24:00", "01:00"),
            ("1:00", "02:00"),
            ("00:60", "02:00"),
            ("a", "b"),
            ("01:00", "01:00"),
            ("+1:00", "02:00"),
        ] {
            assert!(Hours::daily(from, to).is_none(), "{from} {to}");
        }
        assert!(Hours::all_day().by_the_clocks_of("Asia/Nowhere").is_none());
    }

    #[test]
    fn days_have_names() {
        let weekend = Days::named(["sun", "sat"]).unwrap();
        assert_eq!(weekend.names().collect::<Vec<_>>(), ["sat", "sun"]);
        assert_eq!(Days::named(Days::NAMES), Some(Days::ALL));
        for wrong in [&["sat", "sat"][..], &["saturday"], &["Sat"], &[]] {
            assert_eq!(Days::named(wrong.iter().copied()), None, "{wrong:?}");
        }
    }

    // 2026-11-23 is a Monday, and in Shanghai it is eight hours later than in UTC.
    #[test]
    fn days_and_hours_are_those_of_the_place_at_both_edges() {
        let working = Days::named(["mon", "tue", "wed", "thu", "fri"]).unwrap();
        let noon = Hours::daily("12:00", "14:00").unwrap().on(working);
        let noon = noon.by_the_clocks_of("Asia/Shanghai").unwrap();
        check(
            &noon,
            &[
                ("2026-11-23T03:59:59Z", false),
                ("2026-11-23T04:00:00Z", true),
                ("2026-11-23T05:59:59Z", true),
                ("2026-11-23T06:00:00Z", false),
                ("2026-11-27T04:00:00Z", true),
                ("2026-11-28T04:00:00Z", false),
                ("2026-11-29T04:00:00Z", false),
            ],
        );
        assert_eq!(
            noon.to_string(),
            "12:00-14:00 mon,tue,wed,thu,fri Asia/Shanghai"
        );
        let weekend = Hours::all_day().on(Days::named(["sat", "sun"]).unwrap());
        assert_eq!(weekend.to_string(), "sat,sun");
        let there = weekend.clone().by_the_clocks_of("Asia/Shanghai").unwrap();
        check(
            &there,
            &[
                ("2026-11-27T15:59:59Z", false),
                ("2026-11-27T16:00:00Z", true),
                ("2026-11-29T15:59:59Z", true),
                ("2026-11-29T16:00:00Z", false),
            ],
        );
        check(
            &weekend,
            &[
                ("2026-11-27T23:59:59Z", false),
                ("2026-11-28T00:00:00Z", true),
                ("2026-11-29T23:59:59Z", true),
                ("2026-11-30T00:00:00Z", false),
            ],
        );
    }

    #[test]
    fn what_goes_over_midnight_belongs_to_the_day_it_begins_on() {
        let friday = Days::named(["fri"]).unwrap();
        let night = Hours::daily("22:00", "06:00").unwrap().on(friday);
        check(
            &night,
            &[
                ("2026-11-27T05:59:59Z", false),
                ("2026-11-27T21:59:59Z", false),
                ("2026-11-27T22:00:00Z", true),
                ("2026-11-28T05:59:59Z", true),
                ("2026-11-28T06:00:00Z", false),
                ("2026-11-28T22:00:00Z", false),
            ],
        );
        // Until midnight is not over it.
        let evening = Hours::daily("22:00", "00:00").unwrap().on(friday);
        check(
            &evening,
            &[
                ("2026-11-27T23:59:59Z", true),
                ("2026-11-28T00:00:00Z", false),
                ("2026-11-27T00:00:00Z", false),
            ],
        );
    }

    #[test]
    fn clocks_that_are_put_forward_move_the_hours() {
        let night = Hours::daily("01:00", "07:00").unwrap();
        let night = night.by_the_clocks_of("America/New_York").unwrap();
        check(
            &night,
            &[
                // Winter: five hours behind UTC. Summer: four.
                ("2026-01-15T05:59:59Z", false),
                ("2026-01-15T06:00:00Z", true),
                ("2026-01-15T11:59:59Z", true),
                ("2026-07-15T04:59:59Z", false),
                ("2026-07-15T05:00:00Z", true),
                ("2026-07-15T11:00:00Z", false),
            ],
        );
    }
}
