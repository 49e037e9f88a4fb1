//! How large a picture in a `data:` URL is, read from its header alone.

use crate::beginning::beginning;

/// How much of a picture's base64 is decoded to find its size: a JPEG can carry a colour profile
/// and a preview before it says how large it is.
const HEADER_BASE64_BYTES_MAX: usize = 128 * 1024;

/// Width and height in pixels of the PNG, JPEG, GIF or WebP picture in a base64 `data:` URL, read
/// from its header alone; nothing for other URLs and formats and for damaged ones.
///
/// At most 128 KiB of the base64 are decoded, whatever the picture's size.
#[must_use]
pub fn data_url_size(url: &str) -> Option<(u32, u32)> {
    let (scheme, rest) = url.split_at_checked("data:".len())?;
    let (media, base64) = rest.split_once(',')?;
    let base64_data =
        media.len() < 256 && media.trim_end().to_ascii_lowercase().ends_with(";base64");
    if !scheme.eq_ignore_ascii_case("data:") || !base64_data {
        return None;
    }
    let bytes = beginning(base64, HEADER_BASE64_BYTES_MAX)?;
    let size = imagesize::blob_size(&bytes).ok()?;
    let side = |pixels: usize| u32::try_from(pixels).ok().filter(|pixels| *pixels > 0);
    Some((side(size.width)?, side(size.height)?))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::*;
    use crate::beginning::LENIENT;

    const PNG: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAMAAAAHCAYAAADNufepAAAADklEQVR42mNgGAWjAAIAAhcAASoMJfwAAAAASUVORK5CYII=";

    #[test]
    fn sizes_are_read_from_the_header_alone() {
        assert_eq!(data_url_size(PNG), Some((3, 7)));
        for end in 60..PNG.len() {
            assert_eq!(data_url_size(&PNG[..end]), Some((3, 7)), "{end}");
        }
        let long = format!("{PNG}{}", "A".repeat(1 << 20));
        assert_eq!(data_url_size(&long.replace('=', "A")), Some((3, 7)));
        let gif = "DATA:image/gif;base64,R0lGODlhAQABAAAAACw=";
        assert_eq!(data_url_size(gif), Some((1, 1)));
        for bad in [
            "",
            "data:",
            "data:,",
            "data:image/png;base64,",
            "data:image/png,abc",
            "https://example.com/a.png",
            "data:image/png;base64,!!!!",
            "data:image/png;base64,iVBORw0KGgo=",
            "dätä:;base64,AAAA",
            "data:image/jpeg;base64,/9j/AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(data_url_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_jpeg_with_a_profile_before_its_size() {
        let mut jpeg = vec![0xff, 0xd8];
        jpeg.extend([0xff, 0xe2, 0xff, 0x00]);
        jpeg.extend(vec![0; 0xff00 - 2]);
        jpeg.extend([0xff, 0xc0, 0x00, 0x11, 0x08, 0x02, 0x58, 0x03, 0x20]);
        let url = format!("data:image/jpeg;base64,{}", LENIENT.encode(&jpeg));
        assert_eq!(data_url_size(&url), Some((800, 600)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            magic in prop::sample::select(vec![&b"\x89PNG\r\n\x1a\n"[..], b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8X", b""]),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let picture = [magic, &bytes].concat();
            let url = format!("data:image/png;base64,{}", LENIENT.encode(picture));
            let _ = data_url_size(&url);
        }
    }
}
