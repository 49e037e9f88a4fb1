//! How long a sound is, read from the beginning of its base64.

use crate::beginning::beginning;

/// How much of a sound's base64 is decoded: tags and other chunks may come before its format.
const HEADER_BASE64_BYTES_MAX: usize = 64 * 1024;

/// The length in milliseconds of a WAV or MP3 file in base64, or nothing for other formats and
/// damaged files.
///
/// A WAV says how many bytes a second has (RIFF, chunk `fmt `). An MP3 says how many frames it has
/// (the tag `Xing` or `Info`), else the rate of its first frame is taken for all (ISO 11172-3).
#[must_use]
pub fn sound_millis(base64: &str) -> Option<u64> {
    let all = (base64.trim_end_matches('=').len() as u64).saturating_mul(3) / 4;
    let bytes = beginning(base64, HEADER_BASE64_BYTES_MAX)?;
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WAVE") {
        wav(&bytes, all)
    } else {
        mp3(&bytes, all)
    }
}

fn wav(bytes: &[u8], all: u64) -> Option<u64> {
    let mut at = 12;
    let mut bytes_per_second = 0;
    loop {
        let name = bytes.get(at..at + 4)?;
        let size = u32_le(bytes, at + 4)?;
        if name == b"fmt " {
            bytes_per_second = u64::from(u32_le(bytes, at + 16)?);
        } else if name == b"data" {
            let there = all.saturating_sub(at as u64 + 8);
            // A recorder that writes as it goes leaves the size at its most.
            let samples = u64::from(size).min(there);
            return (samples * 1000).checked_div(bytes_per_second);
        }
        // Chunks begin on even bytes.
        let size = usize::try_from(size).ok()?;
        at = at
            .checked_add(8)?
            .checked_add(size)?
            .checked_add(size % 2)?;
    }
}

fn u32_le(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

/// Kilobits of a second by the index in a frame's header, layer III.
const MPEG_1_KBIT: [u64; 15] = [
    0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
];
const MPEG_2_KBIT: [u64; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
/// Samples of a second by the index in a frame's header.
const MPEG_1_HZ: [u64; 3] = [44_100, 48_000, 32_000];

fn mp3(bytes: &[u8], all: u64) -> Option<u64> {
    let tag = id3_bytes(bytes);
    let frame = bytes.get(tag..)?;
    let [0xff, second, third, ..] = *frame else {
        return None;
    };
    // Bits: 11 of sync, 2 of version, 2 of layer, 1 of protection.
    let (sync, version, layer) = (second >> 5, (second >> 3) & 3, (second >> 1) & 3);
    if sync != 7 || layer != 1 || version == 1 {
        return None;
    }
    let (kbit, hz, samples) = match version {
        3 => (&MPEG_1_KBIT, 1, 1152),
        2 => (&MPEG_2_KBIT, 2, 576),
        _ => (&MPEG_2_KBIT, 4, 576),
    };
    let kbit = *kbit.get(usize::from(third >> 4))?;
    let hz = MPEG_1_HZ.get(usize::from((third >> 2) & 3))? / hz;
    let beginning = frame.get(..200).unwrap_or(frame);
    let xing = [&b"Xing"[..], b"Info"]
        .iter()
        .find_map(|name| beginning.windows(4).position(|four| four == *name));
    if let Some(at) = xing
        && beginning.get(at + 7).is_some_and(|flags| flags & 1 == 1)
        && let Some(frames) = beginning.get(at + 8..at + 12)
    {
        let frames = u32::from_be_bytes(frames.try_into().ok()?);
        return (u64::from(frames) * samples * 1000).checked_div(hz);
    }
    // A kilobit of a second is a bit of a millisecond.
    (all.saturating_sub(tag as u64) * 8).checked_div(kbit)
}

/// The bytes of a tag before the first frame: ten, and a size of four times seven bits.
fn id3_bytes(bytes: &[u8]) -> usize {
    match bytes.get(..10) {
        Some([b'I', b'D', b'3', _, _, _, size @ ..]) => size
            .iter()
            .fold(0, |sum, byte| (sum << 7) | usize::from(byte & 0x7f))
            .saturating_add(10),
        Some(_) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::*;
    use crate::beginning::LENIENT;

    fn wav_of(seconds: u32, bytes_per_second: u32, size: u32) -> Vec<u8> {
        let mut wav = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0\x01\0\x01\0".to_vec();
        wav.extend(24_000_u32.to_le_bytes());
        wav.extend(bytes_per_second.to_le_bytes());
        wav.extend([2, 0, 16, 0]);
        wav.extend(b"data");
        wav.extend(size.to_le_bytes());
        wav.extend(vec![0; (seconds * bytes_per_second) as usize]);
        wav
    }

    #[test]
    fn a_wav_says_how_long_it_is_even_when_its_recorder_did_not_know() {
        for size in [96_000, u32::MAX] {
            let wav = wav_of(2, 48_000, size);
            assert_eq!(sound_millis(&LENIENT.encode(wav)), Some(2000), "{size}");
        }
        assert_eq!(sound_millis(&LENIENT.encode(wav_of(1, 0, 100))), None);
    }

    #[test]
    fn an_mp3_is_as_long_as_its_rate_or_its_frames_say() {
        // MPEG 1, layer III, 128 kbit/s, 44.1 kHz: 16,000 bytes a second.
        let mut plain = vec![0xff, 0xfb, 0x90, 0x00];
        plain.resize(32_000, 0);
        assert_eq!(sound_millis(&LENIENT.encode(&plain)), Some(2000));
        let mut tagged = b"ID3\x04\0\0\0\0\x01\x00".to_vec();
        tagged.extend([0; 128]);
        tagged.extend(&plain);
        assert_eq!(sound_millis(&LENIENT.encode(&tagged)), Some(2000));
        plain[36..40].copy_from_slice(b"Xing");
        plain[43] = 1;
        plain[44..48].copy_from_slice(&1000_u32.to_be_bytes());
        let millis = sound_millis(&LENIENT.encode(&plain));
        assert_eq!(millis, Some(1000 * 1152 * 1000 / 44_100));
    }

    #[test]
    fn what_is_no_such_sound_has_no_length() {
        for bytes in [
            &b""[..],
            b"OggS",
            b"fLaC\0\0",
            b"RIFF\0\0\0\0WAVE",
            b"\xff\xfb",
        ] {
            assert_eq!(sound_millis(&LENIENT.encode(bytes)), None);
        }
        assert_eq!(sound_millis("!!!!"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            magic in prop::sample::select(vec![&b"RIFF\0\0\0\0WAVEfmt "[..], b"RIFF\0\0\0\0WAVEdata", b"ID3", b"\xff\xfb", b"\xff\xe3", b""]),
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = sound_millis(&LENIENT.encode([magic, &bytes].concat()));
        }
    }
}
