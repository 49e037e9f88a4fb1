//! API key secrets: how they are made, checked without a look-up, and digested for keeping.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use rand::TryRng;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "sk-tw-";
/// 62^43 > 2^256: so many letters carry 256 random bits.
const BODY_LETTERS: usize = 43;
const CHECKSUM_LETTERS: usize = 6;
/// Letters of the secret that lists show after `sk-tw-`.
const SHOWN_LETTERS: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A secret in the clear: shown once, never stored, never printed by accident.
#[derive(Clone)]
pub struct ApiKeySecret(String);

/// What is kept of a secret: HMAC-SHA256 under the instance's pepper.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Digest(pub(crate) [u8; 32]);

/// 32 random bytes of this installation, without which a copy of the keys table is useless.
#[derive(Clone)]
pub(crate) struct Pepper {
    bytes: [u8; 32],
    /// A MAC that has taken in the key: every digest begins as a copy of it.
    mac: Hmac<Sha256>,
}

impl ApiKeySecret {
    /// A new secret: `sk-tw-`, 43 letters from 256 bits of the operating system's randomness,
    /// and a checksum of 6 letters.
    pub(crate) fn random() -> Result<Self, std::io::Error> {
        let mut bytes = [0_u8; 32];
        fill_random(&mut bytes)?;
        Ok(Self::from_bits(bytes))
    }

    fn from_bits(mut bytes: [u8; 32]) -> Self {
        let mut text = String::with_capacity(PREFIX.len() + BODY_LETTERS + CHECKSUM_LETTERS);
        text.push_str(PREFIX);
        for _ in 0..BODY_LETTERS {
            text.push(letter(divide_by_62(&mut bytes)));
        }
        let sum = checksum(&text);
        text.push_str(&sum);
        Self(text)
    }

    /// The secret itself: for the one answer that shows it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The first letters, for lists.
    pub(crate) fn shown_prefix(&self) -> String {
        self.0.chars().take(PREFIX.len() + SHOWN_LETTERS).collect()
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeySecret(…)")
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(…)")
    }
}

impl Pepper {
    pub(crate) fn random() -> Result<Self, std::io::Error> {
        let mut bytes = [0_u8; 32];
        fill_random(&mut bytes)?;
        Ok(Self::of(bytes))
    }

    /// The pepper of these bytes.
    #[expect(
        clippy::expect_used,
        reason = "HMAC takes keys of every length; the error type serves other MACs"
    )]
    pub(crate) fn of(bytes: [u8; 32]) -> Self {
        let mac = Hmac::new_from_slice(&bytes).expect("HMAC takes any key length");
        Self { bytes, mac }
    }

    /// Its bytes, to be kept.
    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The digest under which `secret` is kept.
    pub(crate) fn digest(&self, secret: &str) -> Digest {
        let mut mac = self.mac.clone();
        mac.update(secret.as_bytes());
        Digest(mac.finalize().into_bytes().into())
    }

    /// The digest of several parts; none can be mistaken for a part of another.
    pub(crate) fn digest_of(&self, parts: &[&[u8]]) -> Digest {
        let mut mac = self.mac.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        Digest(mac.finalize().into_bytes().into())
    }
}

impl Digest {
    /// Equality in constant time.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// True when `secret` has the form and checksum of a key: anything else is refused without a
/// look-up, so guessing never reaches the database.
#[must_use]
pub fn well_formed(secret: &str) -> bool {
    let letters = BODY_LETTERS + CHECKSUM_LETTERS;
    let Some(body) = secret.strip_prefix(PREFIX) else {
        return false;
    };
    if body.len() != letters || !body.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return false;
    }
    secret
        .split_at_checked(PREFIX.len() + BODY_LETTERS)
        .is_some_and(|(front, sum)| checksum(front) == sum)
}

/// Six letters over what stands before: it catches typing errors, not attackers.
fn checksum(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    let mut bytes: [u8; 32] = hash.into();
    (0..CHECKSUM_LETTERS)
        .map(|_| letter(divide_by_62(&mut bytes)))
        .collect()
}

fn letter(index: u8) -> char {
    ALPHABET
        .get(usize::from(index))
        .copied()
        .map_or('0', char::from)
}

/// Divides the big-endian number by 62 in place and gives the remainder.
fn divide_by_62(number: &mut [u8; 32]) -> u8 {
    let mut rest = 0_u16;
    for byte in number {
        let value = (rest << 8) | u16::from(*byte);
        // 62 * 256 > value, so the quotient fits a byte.
        *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
        rest = value % 62;
    }
    u8::try_from(rest).unwrap_or(0)
}

fn fill_random(bytes: &mut [u8]) -> Result<(), std::io::Error> {
    rand::rngs::SysRng
        .try_fill_bytes(bytes)
        .map_err(|error| std::io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_well_formed_and_a_changed_one_is_not() {
        let secret = ApiKeySecret::random().unwrap();
        let text = secret.expose();
        assert_eq!(text.len(), 55);
        assert!(well_formed(text), "{}", text.len());
        for at in PREFIX.len()..text.len() {
            let mut changed = text.to_owned().into_bytes();
            changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
            assert!(!well_formed(std::str::from_utf8(&changed).unwrap()), "{at}");
        }
        for bad in [
            "",
            "sk-tw-",
            "sk-",
            &format!("{text}a"),
            &text[..54],
            "sk-tw-ä",
        ] {
            assert!(!well_formed(bad), "{bad}");
        }
    }

    #[test]
    fn the_letters_carry_every_bit() {
        assert_ne!(
            ApiKeySecret::from_bits([0xff; 32]).0,
            ApiKeySecret::from_bits({
                let mut bits = [0xff; 32];
                bits[0] = 0x7f;
                bits
            })
            .0
        );
        assert!(well_formed(&ApiKeySecret::from_bits([0; 32]).0));
    }

    #[test]
    fn printing_a_secret_shows_nothing_of_it() {
        let secret = ApiKeySecret::random().unwrap();
        assert_eq!(format!("{secret:?}"), "ApiKeySecret(…)");
        let pepper = Pepper::random().unwrap();
        assert_eq!(
            format!("{pepper:?} {:?}", pepper.digest("x")),
            "Pepper(…) Digest(…)"
        );
    }

    #[test]
    fn a_digest_needs_its_pepper() {
        let (a, b) = (Pepper::of([1; 32]), Pepper::of([2; 32]));
        assert!(a.digest("x").same_as(&a.digest("x")));
        assert!(!a.digest("x").same_as(&b.digest("x")));
    }
}
