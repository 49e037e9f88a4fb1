//! How long a recording is: read out of its file where that can be trusted, else bounded by its bytes.

use std::io::Cursor;

use lofty::{file::AudioFile as _, probe::Probe};

/// Speech at fewer bytes a second than this is not what anybody records: Opus begins at 750.
const BYTES_PER_SECOND_MIN: u64 = 500;

/// The length of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// What the file says, in milliseconds.
    pub likely_ms: u64,
    /// At most, in milliseconds, whatever the file says.
    pub at_most_ms: u64,
}

/// The length of a recording. WAV and MP3 are measured: their lengths follow from what a decoder
/// must play. Other files only say how long they are, so that no more than their bytes bounds them.
#[must_use]
pub fn of(bytes: &[u8]) -> Length {
    if let Some(ms) = wav(bytes).or_else(|| mp3(bytes)) {
        return Length {
            likely_ms: ms,
            at_most_ms: ms,
        };
    }
    let bounded = bounded(bytes);
    Length {
        likely_ms: told(bytes).map_or(bounded.at_most_ms, |told| told.min(bounded.at_most_ms)),
        ..bounded
    }
}

/// The length of a recording that cannot be read.
#[must_use]
pub fn bounded(bytes: &[u8]) -> Length {
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let at_most_ms = size.saturating_mul(1000).div_ceil(BYTES_PER_SECOND_MIN);
    Length {
        likely_ms: at_most_ms,
        at_most_ms,
    }
}

/// What the file's own tables say (MP4, OGG, FLAC and others).
fn told(bytes: &[u8]) -> Option<u64> {
    let probe = Probe::new(Cursor::new(bytes)).guess_file_type().ok()?;
    let duration = probe.read().ok()?.properties().duration();
    let ms = u64::try_from(duration.as_millis()).ok()?;
    (ms > 0).then_some(ms)
}

/// Uncompressed WAV: all that follows the head is samples, whatever the head says of their number.
///
/// Source of the layout: Microsoft, "Multiple channel audio data and WAVE files".
fn wav(bytes: &[u8]) -> Option<u64> {
    const PCM: u16 = 1;
    const FLOAT: u16 = 3;
    const EXTENSIBLE: u16 = 0xfffe;
    if bytes.get(..4)? != b"RIFF" || bytes.get(8..12)? != b"WAVE" {
        return None;
    }
    let (mut at, mut bytes_per_second) = (12_usize, None);
    loop {
        let name = bytes.get(at..at + 4)?;
        let size = usize::try_from(u32_at(bytes, at + 4)?).ok()?;
        let body = at + 8;
        if name == b"fmt " {
            let format = u16_at(bytes, body)?;
            let channels = u64::from(u16_at(bytes, body + 2)?);
            let rate = u64::from(u32_at(bytes, body + 4)?);
            let bits = u64::from(u16_at(bytes, body + 14)?);
            let sound = matches!(format, PCM | FLOAT | EXTENSIBLE) && bits % 8 == 0;
            bytes_per_second = Some(rate * channels * (bits / 8)).filter(|all| sound && *all > 0);
        } else if name == b"data" {
            let samples = u64::try_from(bytes.len() - body.min(bytes.len())).ok()?;
            return Some(samples.saturating_mul(1000).div_ceil(bytes_per_second?));
        }
        // Chunks lie at even places.
        at = body.checked_add(size)?.checked_add(size % 2)?;
    }
}

/// MPEG audio, frame by frame; `None` where frames do not fill the file.
///
/// Source of the layout: ISO 11172-3 and 13818-3, 2.4.2.3.
fn mp3(bytes: &[u8]) -> Option<u64> {
    let mut at = id3(bytes);
    let (mut covered, mut microseconds) = (at, 0_u64);
    let mut frames = 0_u64;
    while let Some(rest) = bytes.get(at..) {
        let Some(frame) = Frame::read(rest) else {
            let Some(next) = rest.get(1..).and_then(|rest| memchr::memchr(0xff, rest)) else {
                break;
            };
            at += 1 + next;
            continue;
        };
        frames += 1;
        microseconds = microseconds.saturating_add(frame.samples * 1_000_000 / frame.rate + 1);
        covered += frame.bytes;
        at += frame.bytes;
    }
    let sound = frames > 0 && covered.saturating_mul(10) >= bytes.len().saturating_mul(9);
    sound.then(|| microseconds.div_ceil(1000))
}

/// Where the tag before the frames ends.
fn id3(bytes: &[u8]) -> usize {
    match bytes.get(..10) {
        Some([b'I', b'D', b'3', _, _, _, size @ ..]) => {
            let size = size
                .iter()
                .fold(0_usize, |sum, byte| (sum << 7) | usize::from(byte & 0x7f));
            (10 + size).min(bytes.len())
        }
        Some(_) | None => 0,
    }
}

/// One frame of MPEG audio.
struct Frame {
    bytes: usize,
    samples: u64,
    rate: u64,
}

impl Frame {
    fn read(bytes: &[u8]) -> Option<Self> {
        /// Kilobits a second by version and layer, for the indexes 1 to 14.
        const V1_L1: [u64; 14] = [
            32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448,
        ];
        const V1_L2: [u64; 14] = [
            32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384,
        ];
        const V1_L3: [u64; 14] = [
            32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
        ];
        const V2_L1: [u64; 14] = [
            32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256,
        ];
        const V2_L23: [u64; 14] = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
        let &[0xff, second, third, _] = bytes.get(..4)? else {
            return None;
        };
        if second & 0xe0 != 0xe0 {
            return None;
        }
        let (version, layer) = ((second >> 3) & 3, (second >> 1) & 3);
        let rates = match version {
            3 => [44_100, 48_000, 32_000],
            2 => [22_050, 24_000, 16_000],
            0 => [11_025, 12_000, 8_000],
            _ => return None,
        };
        let (table, samples): (_, u64) = match (version, layer) {
            (3, 3) => (V1_L1, 384),
            (3, 2) => (V1_L2, 1152),
            (3, 1) => (V1_L3, 1152),
            (_, 3) => (V2_L1, 384),
            (_, 2) => (V2_L23, 1152),
            (_, 1) => (V2_L23, 576),
            (_, _) => return None,
        };
        let bits = table.get(usize::from(third >> 4).checked_sub(1)?)? * 1000;
        let rate: u64 = *rates.get(usize::from((third >> 2) & 3))?;
        let padding = u64::from((third >> 1) & 1) * if layer == 3 { 4 } else { 1 };
        let length = if layer == 3 {
            12 * bits / rate * 4
        } else {
            samples / 8 * bits / rate
        };
        Some(Self {
            bytes: usize::try_from(length + padding)
                .ok()
                .filter(|bytes| *bytes >= 4)?,
            samples,
            rate,
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(two.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many seconds of silence, in samples of 16 bits; the head says `claimed` bytes.
    fn silence(rate: u32, seconds: u32, claimed: u32) -> Vec<u8> {
        let size = rate * 2 * seconds;
        let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        file.extend(rate.to_le_bytes());
        file.extend((rate * 2).to_le_bytes());
        file.extend(b"\x02\0\x10\0data");
        file.extend(claimed.to_le_bytes());
        file.resize(file.len() + size as usize, 0);
        file
    }

    fn exactly(ms: u64) -> Length {
        Length {
            likely_ms: ms,
            at_most_ms: ms,
        }
    }

    #[test]
    fn a_wav_is_as_long_as_its_samples_whatever_it_says() {
        assert_eq!(of(&silence(8_000, 3, 48_000)), exactly(3_000));
        assert_eq!(of(&silence(8_000, 3, 2)), exactly(3_000));
    }

    #[test]
    fn an_mp3_is_as_long_as_its_frames() {
        // MPEG 1, layer 3, 128 kbit/s, 44.1 kHz: 417 bytes, 26.12 ms.
        let mut frame = vec![0xff, 0xfb, 0x90, 0x00];
        frame.resize(417, 0);
        let file = frame.repeat(100);
        let Length {
            likely_ms,
            at_most_ms,
        } = of(&file);
        assert!((2_612..=2_613).contains(&likely_ms), "{likely_ms}");
        assert_eq!(likely_ms, at_most_ms);
        let tagged = [b"ID3\x04\0\0\0\0\x01\0".to_vec(), vec![0; 128], file].concat();
        assert_eq!(of(&tagged).likely_ms, likely_ms);
    }

    #[test]
    fn what_cannot_be_read_is_bounded_by_its_bytes() {
        assert_eq!(of(&[b'x'; 5_000]), exactly(10_000));
        assert_eq!(of(b""), exactly(0));
        // A frame in garbage is no MP3.
        let mut file = vec![0xff, 0xfb, 0x90, 0x00];
        file.resize(50_000, 7);
        assert_eq!(of(&file).at_most_ms, 100_000);
        // A head of samples that cannot be.
        let mut file = silence(8_000, 1, 16_000);
        file[34] = 3;
        assert_eq!(of(&file).at_most_ms, (file.len() as u64) * 2);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = silence(8_000, 1, 16_000);
        for end in 0..80 {
            let _ = of(&whole[..end]);
        }
        for byte in 0..=255 {
            let _ = of(&[0xff, 0xfb, byte, byte, byte]);
            let _ = of(&[b"RIFF0000WAVEfmt ".to_vec(), vec![byte; 40]].concat());
        }
    }
}
