//! The beginning of a file in base64, decoded as far as it is needed.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// Base64 that may end anywhere: only the beginning of a file is decoded.
pub(crate) const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes of at most the first `base64_bytes_max` bytes of base64, without what is no whole byte
/// where it was cut; nothing where it is no base64.
pub(crate) fn beginning(base64: &str, base64_bytes_max: usize) -> Option<Vec<u8>> {
    let all = base64.as_bytes();
    let mut start = all.get(..base64_bytes_max).unwrap_or(all).trim_ascii_end();
    while let Some(rest) = start.strip_suffix(b"=") {
        start = rest;
    }
    if start.len() % 4 == 1 {
        // A single character is no byte yet.
        start = start.split_last().map_or(start, |(_, rest)| rest);
    }
    LENIENT.decode(start).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_may_be_cut_anywhere() {
        let whole = b"0123456789abcdef";
        let base64 = LENIENT.encode(whole);
        for end in 0..=base64.len() {
            let bytes = beginning(&base64, end).unwrap();
            assert!(whole.starts_with(&bytes), "{end}");
            assert_eq!(bytes.len(), (end * 3 / 4).min(whole.len()), "{end}");
            assert_eq!(beginning(&base64[..end], usize::MAX), Some(bytes));
        }
        assert_eq!(beginning("TWFu\n", 99).unwrap(), b"Man");
        assert_eq!(beginning("T!!!", 99), None);
    }
}
