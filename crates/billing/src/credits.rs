//! Credits: an amount of money in integer nano-credits, with checked arithmetic and decimal text.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Nano-credits in one credit.
const NANOS_PER_CREDIT: i64 = 1_000_000_000;
/// Digits after the decimal point that a nano-credit needs.
const FRACTION_DIGITS: usize = 9;

/// An amount in nano-credits (1 credit = 1e9); about ±9.2 billion credits fit.
///
/// Its text form, in JSON too, is a decimal number of credits such as `12.5`: floats do not
/// exist here. All arithmetic is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Credits(i64);

/// Why an amount was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreditsError {
    /// The text is not a plain decimal number.
    #[error("an amount is a decimal number of credits such as \"12.5\"")]
    NotDecimal,
    /// The text is finer than a nano-credit.
    #[error("an amount has at most 9 digits after the point")]
    TooFine,
    /// The result does not fit.
    #[error("an amount is at most 9223372036.854775807 credits")]
    Overflow,
}

impl Credits {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount.
    pub const MAX: Self = Self(i64::MAX);

    /// The amount of `nanos` nano-credits.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// The amount in nano-credits.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// The sum.
    ///
    /// # Errors
    /// [`CreditsError::Overflow`] when it does not fit.
    pub fn checked_add(self, other: Self) -> Result<Self, CreditsError> {
        self.0
            .checked_add(other.0)
            .map(Self)
            .ok_or(CreditsError::Overflow)
    }

    /// The difference, which may be negative.
    ///
    /// # Errors
    /// [`CreditsError::Overflow`] when it does not fit.
    pub fn checked_sub(self, other: Self) -> Result<Self, CreditsError> {
        self.0
            .checked_sub(other.0)
            .map(Self)
            .ok_or(CreditsError::Overflow)
    }

    /// The amount with its sign turned.
    ///
    /// # Errors
    /// [`CreditsError::Overflow`] for the smallest amount.
    pub fn checked_neg(self) -> Result<Self, CreditsError> {
        self.0.checked_neg().map(Self).ok_or(CreditsError::Overflow)
    }

    /// The sum, pinned to the largest or smallest amount: for limits and displays, not for books.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, pinned: for limits and displays, not for books.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// True below zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// True above zero.
    #[must_use]
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// True at exactly zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// This amount, or zero where it is negative.
    #[must_use]
    pub fn at_least_zero(self) -> Self {
        self.max(Self::ZERO)
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let whole = nanos / NANOS_PER_CREDIT.unsigned_abs();
        let mut fraction = nanos % NANOS_PER_CREDIT.unsigned_abs();
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let mut width = FRACTION_DIGITS;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            width -= 1;
        }
        write!(f, "{sign}{whole}.{fraction:0width$}")
    }
}

impl FromStr for Credits {
    type Err = CreditsError;

    fn from_str(text: &str) -> Result<Self, CreditsError> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        let dangling_point = digits.ends_with('.');
        if whole.is_empty() || dangling_point || !all_digits(whole) || !all_digits(fraction) {
            return Err(CreditsError::NotDecimal);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > FRACTION_DIGITS {
            return Err(CreditsError::TooFine);
        }
        let whole: i128 = whole.parse().map_err(|_| CreditsError::Overflow)?;
        let fraction: i128 = format!("{fraction:0<width$}", width = FRACTION_DIGITS)
            .parse()
            .map_err(|_| CreditsError::NotDecimal)?;
        let nanos = whole
            .checked_mul(i128::from(NANOS_PER_CREDIT))
            .and_then(|w| w.checked_add(fraction))
            .ok_or(CreditsError::Overflow)?;
        let nanos = if negative { -nanos } else { nanos };
        i64::try_from(nanos)
            .map(Self)
            .map_err(|_| CreditsError::Overflow)
    }
}

impl Serialize for Credits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Credits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_forms() {
        for (text, nanos) in [
            ("0", 0),
            ("1", 1_000_000_000),
            ("12.5", 12_500_000_000),
            ("-0.000000001", -1),
            ("0.100", 100_000_000),
            ("9223372036.854775807", i64::MAX),
            ("-9223372036.854775808", i64::MIN),
        ] {
            assert_eq!(text.parse(), Ok(Credits(nanos)), "{text}");
        }
        assert_eq!(Credits(12_500_000_000).to_string(), "12.5");
        assert_eq!(Credits(i64::MIN).to_string(), "-9223372036.854775808");
    }

    #[test]
    fn refused_text() {
        for text in [
            "", "-", ".", "1.", ".5", "+1", "1e3", " 1", "1,5", "0x1", "NaN", "1.-5", "--1",
        ] {
            assert_eq!(
                text.parse::<Credits>(),
                Err(CreditsError::NotDecimal),
                "{text}"
            );
        }
        assert_eq!(
            "0.0000000001".parse::<Credits>(),
            Err(CreditsError::TooFine)
        );
        for text in [
            "9223372036.854775808",
            "99999999999999999999999999999999999999999",
        ] {
            assert_eq!(
                text.parse::<Credits>(),
                Err(CreditsError::Overflow),
                "{text}"
            );
        }
    }

    #[test]
    fn json_is_a_string_and_never_a_number() {
        assert_eq!(
            serde_json::to_string(&Credits(1)).unwrap(),
            "\"0.000000001\""
        );
        assert!(serde_json::from_str::<Credits>("1.5").is_err());
        assert!(serde_json::from_str::<Credits>("5").is_err());
    }

    proptest! {
        #[test]
        fn text_round_trips(nanos in any::<i64>()) {
            prop_assert_eq!(Credits(nanos).to_string().parse(), Ok(Credits(nanos)));
        }
    }
}
