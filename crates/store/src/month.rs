//! Months of charges: their names, their ids, and the partitions that Postgres keeps them in.

use std::{fmt, str::FromStr};

use billing::RequestId;
use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use uuid::Uuid;

use crate::{
    Store, StoreError, book,
    charge::first_id,
    check,
    link::Link,
    sql::{Flavor, sql},
};

/// Partitions are made for this month and so many after it.
const MONTHS_AHEAD: i32 = 2;
/// Whoever makes or drops a partition holds this lock, so that replicas do not do it at once.
pub(crate) const PARTITIONS_LOCK: i64 = 0x746f_6c6c_7761_7901;
/// Attaching a partition waits for readers of charges, and others wait behind it: not for long.
const ATTACH_LOCK_MS: u32 = 500;

/// A month, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(Date);

impl Month {
    /// The month that a moment lies in.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        let date = at.to_zoned(TimeZone::UTC).date();
        Self(date.first_of_month())
    }

    /// The month in which a request was admitted, by its id.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for an id beyond the year 9999.
    pub fn of_request(id: RequestId) -> Result<Self, StoreError> {
        check::timestamp(crate::charge::admitted_us(id)).map(Self::of)
    }

    /// The next month.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] after the year 9999.
    pub fn next(self) -> Result<Self, StoreError> {
        let next = self.0.checked_add(1.month());
        next.map(Self).map_err(|_| no_month())
    }

    /// Its first moment.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] before the year 1970.
    pub fn start(self) -> Result<Timestamp, StoreError> {
        let start = self.0.to_zoned(TimeZone::UTC).map_err(|_| no_month())?;
        let start = start.timestamp();
        if start < Timestamp::UNIX_EPOCH {
            return Err(no_month());
        }
        Ok(start)
    }

    /// Its ids: from the first, and below the second.
    pub(crate) fn ids(self) -> Result<(Uuid, Uuid), StoreError> {
        Ok((first_id(self.start()?), first_id(self.next()?.start()?)))
    }

    /// The name of its partition.
    pub(crate) fn partition(self) -> String {
        format!("charges_{:04}_{:02}", self.0.year(), self.0.month())
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.year(), self.0.month())
    }
}

impl FromStr for Month {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let parsed = text.split_once('-').and_then(|(year, month)| {
            let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
            if (year.len(), month.len()) != (4, 2) || !digits(year) || !digits(month) {
                return None;
            }
            Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok()
        });
        let month = parsed.map(Self).ok_or_else(no_month)?;
        month.ids().map(|_| month)
    }
}

fn no_month() -> StoreError {
    StoreError::Invalid {
        field: "month",
        problem: "a month since 1970 is written as 2026-08",
    }
}

/// Makes the partitions of this month and the next ones, where the database has partitions and
/// nobody else is at it. Charges do not depend on it: what has no month goes to `charges_other`.
pub(crate) async fn make_ahead(store: &Store) -> Result<(), StoreError> {
    let missing = {
        let mut reader = store.read().await?;
        let mut link = reader.link();
        match link.flavor() {
            Flavor::Sqlite => return Ok(()),
            Flavor::Postgres => missing(&mut link).await?,
        }
    };
    for month in missing {
        let mut tx = store.begin().await?;
        let mut link = tx.link();
        let lock = sql("SELECT pg_try_advisory_xact_lock(?)").int(PARTITIONS_LOCK);
        let (mine,) = link.one::<(bool,)>(lock).await?;
        if !mine {
            return Ok(());
        }
        link.run(sql(format!("SET LOCAL lock_timeout = {ATTACH_LOCK_MS}")))
            .await?;
        let make = sql("SELECT make_charges_month(CAST(? AS date))").text(&format!("{month}-01"));
        link.one::<(bool,)>(make).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// The months that should have a partition and have none.
async fn missing(link: &mut Link<'_>) -> Result<Vec<Month>, StoreError> {
    let mut month = Month::of(check::timestamp(book::now(link).await?.0)?);
    let mut missing = Vec::new();
    for _ in 0..=MONTHS_AHEAD {
        let there = sql("SELECT to_regclass(?) IS NOT NULL").text(&month.partition());
        let (there,) = link.one::<(bool,)>(there).await?;
        if !there {
            missing.push(month);
        }
        month = month.next()?;
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_have_names_and_ids() {
        let month: Month = "2026-12".parse().unwrap();
        assert_eq!(month.to_string(), "2026-12");
        assert_eq!(month.partition(), "charges_2026_12");
        assert_eq!(month.next().unwrap().to_string(), "2027-01");
        assert_eq!(month.start().unwrap().to_string(), "2026-12-01T00:00:00Z");
        let (first, end) = month.ids().unwrap();
        assert_eq!(end, month.next().unwrap().ids().unwrap().0);
        let last = RequestId::from_uuid(Uuid::from_u128(end.as_u128() - 1));
        assert_eq!(Month::of_request(last).unwrap(), month);
        let first = RequestId::from_uuid(first);
        assert_eq!(Month::of_request(first).unwrap(), month);
        assert!(Month::of_request(RequestId::from_uuid(Uuid::max())).is_err());
        for bad in [
            "",
            "2026",
            "2026-13",
            "2026-00",
            "26-08",
            "2026-8",
            "2026-08-01",
            "1969-12",
            "+026-08",
            "9999-12",
        ] {
            assert!(bad.parse::<Month>().is_err(), "{bad}");
        }
    }
}
