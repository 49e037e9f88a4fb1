//! Exact decimal numbers: the prices of a table, moved by powers of ten and never through a float.

use std::{fmt, str::FromStr};

/// Digits that a mantissa may have; the longest price seen in a table has 20.
const MANTISSA_DIGITS_MAX: usize = 30;
/// Digits after the point that a price may have: a nano-credit per million tokens.
pub(crate) const FRACTION_DIGITS_MAX: i32 = 9;
/// The largest power of ten that is believed, either way.
const EXPONENT_MAX: i32 = 40;
/// Digits that only a float's own printing gives a price.
const FLOAT_DIGITS_MIN: u32 = 15;
/// Digits that a float prints at most.
const FLOAT_DIGITS_MAX: u32 = 17;
/// Digits that a price is believed to have at most.
const SHORT_DIGITS: u32 = 12;
/// One part in this many is as close as a float can tell.
const FLOAT_PRECISION: u128 = 1_000_000_000_000_000;

/// A number that is not negative, `mantissa × 10^exponent`, kept without trailing zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    mantissa: u128,
    exponent: i32,
}

/// Why a text is not a price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not a plain or scientific decimal number, or negative.
    #[error("\"{0}\" is not a decimal number from zero up")]
    NotDecimal(String),
    /// Too many digits or too large an exponent.
    #[error("\"{0}\" has too many digits")]
    TooLong(String),
}

impl Decimal {
    /// The number times `10^places`.
    #[must_use]
    pub fn shifted(self, places: i32) -> Self {
        Self::normal(self.mantissa, self.exponent.saturating_add(places))
    }

    /// The short number that a binary float was meant to be.
    ///
    /// Tables are written by programs that multiply floats, so 0.2 turns into 0.20000000000000001.
    /// No published price has 15 digits; one that does, and is as close to a number of 12 digits as
    /// a float can tell, is that number. Anything else is returned as it is.
    #[must_use]
    pub fn without_float_noise(self) -> Self {
        let digits = self.mantissa.checked_ilog10().map_or(0, |log| log + 1);
        if !(FLOAT_DIGITS_MIN..=FLOAT_DIGITS_MAX).contains(&digits) {
            return self;
        }
        let scale = 10u128.pow(digits - SHORT_DIGITS);
        let short = (self.mantissa + scale / 2) / scale * scale;
        if short.abs_diff(self.mantissa) > self.mantissa / FLOAT_PRECISION {
            return self;
        }
        Self::normal(short, self.exponent)
    }

    /// The number, rounded up to `places` digits after the point where it is a fraction that no
    /// decimal can say, such as a third: those have as many digits as a float prints.
    #[must_use]
    pub fn fraction_rounded_up(self, places: i32) -> Self {
        let digits = self.mantissa.checked_ilog10().map_or(0, |log| log + 1);
        let excess = self.fraction_digits() - places;
        if digits < FLOAT_DIGITS_MIN || excess <= 0 {
            return self;
        }
        let Some(scale) = u32::try_from(excess)
            .ok()
            .and_then(|excess| 10u128.checked_pow(excess))
        else {
            return self;
        };
        Self::normal(self.mantissa.div_ceil(scale), self.exponent + excess)
    }

    /// True for zero.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// How many digits follow the point.
    #[must_use]
    pub fn fraction_digits(self) -> i32 {
        self.exponent.min(0).saturating_neg()
    }

    fn normal(mut mantissa: u128, mut exponent: i32) -> Self {
        if mantissa == 0 {
            return Self {
                mantissa: 0,
                exponent: 0,
            };
        }
        while mantissa.is_multiple_of(10) {
            mantissa /= 10;
            exponent = exponent.saturating_add(1);
        }
        Self { mantissa, exponent }
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let not_decimal = || DecimalError::NotDecimal(text.to_owned());
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => {
                (number, exponent.parse::<i32>().map_err(|_| not_decimal())?)
            }
            None => (text, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{fraction}");
        if whole.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(not_decimal());
        }
        if digits.len() > MANTISSA_DIGITS_MAX || exponent.abs() > EXPONENT_MAX {
            return Err(DecimalError::TooLong(text.to_owned()));
        }
        let mantissa: u128 = digits.parse().map_err(|_| not_decimal())?;
        let places = i32::try_from(fraction.len()).map_err(|_| not_decimal())?;
        Ok(Self::normal(mantissa, exponent.saturating_sub(places)))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.mantissa.to_string();
        if self.exponent >= 0 {
            let zeros = usize::try_from(self.exponent).unwrap_or(0);
            return write!(f, "{digits}{}", "0".repeat(zeros));
        }
        let places = usize::try_from(self.fraction_digits()).unwrap_or(0);
        let padded = format!("{digits:0>width$}", width = places.saturating_add(1));
        let (whole, fraction) = padded.split_at(padded.len().saturating_sub(places));
        write!(f, "{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn per_million(per_token: &str, expected: &str) {
        let number: Decimal = per_token.parse().unwrap();
        assert_eq!(number.shifted(6).to_string(), expected, "{per_token}");
    }

    #[test]
    fn moves_a_price_per_token_to_the_million_exactly() {
        per_million("1.3e-10", "0.00013");
        per_million("2.5e-06", "2.5");
        per_million("1e-05", "10");
        per_million("0.0000025", "2.5");
        per_million("1.25E-7", "0.125");
        per_million("0.00015", "150");
        per_million("0.0", "0");
        per_million("3", "3000000");
        per_million("0.000015000020000000002", "15.000020000000002");
    }

    #[test]
    fn takes_float_noise_away_and_nothing_else() {
        let check = |text: &str, expected: &str| {
            let number: Decimal = text.parse().unwrap();
            assert_eq!(number.without_float_noise().to_string(), expected, "{text}");
        };
        check("1.0399999999999998", "1.04");
        check("9.499999999999999e-07", "0.00000095");
        check("1.3200000000000002e-07", "0.000000132");
        check("0.000015000020000000002", "0.00001500002");
        check("0.1234567890123456", "0.1234567890123456");
        check("1.00000000000001", "1.00000000000001");
        check("1.3e-10", "0.00000000013");
        check("0", "0");
    }

    #[test]
    fn rounds_thirds_up_and_nothing_else() {
        let check = |text: &str, expected: &str| {
            let number: Decimal = text.parse().unwrap();
            assert_eq!(
                number.fraction_rounded_up(9).to_string(),
                expected,
                "{text}"
            );
        };
        check("0.08333333333333334", "0.083333334");
        check("0.083333333333333", "0.083333333333333");
        check("0.3333333333333333", "0.333333334");
        check("0.0000000001", "0.0000000001");
        check("1234567890123456", "1234567890123456");
        check("2.5", "2.5");
    }

    #[test]
    fn says_how_fine_it_is() {
        let fine: Decimal = "15.000020000000002".parse().unwrap();
        assert_eq!(fine.fraction_digits(), 15);
        let whole: Decimal = "1500".parse().unwrap();
        assert_eq!(whole.fraction_digits(), 0);
    }

    #[test]
    fn refuses_what_is_no_price() {
        for text in [
            "", ".", ".5", "-1", "+1", "1e", "1e1.5", "nan", "1,5", "1 ", "1_000",
        ] {
            assert!(text.parse::<Decimal>().is_err(), "{text:?}");
        }
        assert!("1e41".parse::<Decimal>().is_err());
        assert!("1".repeat(31).parse::<Decimal>().is_err());
    }
}
