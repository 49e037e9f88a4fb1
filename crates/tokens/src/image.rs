//! Images: what one costs by the published rules, and how large one is.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{TokensError, error::shortened};

/// The side of a tile, in pixels.
const TILE: u64 = 512;
/// An image is first made to fit a square of this side, in pixels.
const TILED_LONG_SIDE_MAX: u64 = 2048;
/// Then its shortest side is brought down to this, in pixels.
const TILED_SHORT_SIDE_MAX: u64 = 768;
/// The most tiles that are left: 2048 by 768 pixels.
const TILES_MAX: u64 = 8;
/// The side of a patch, in pixels.
const PATCH: u64 = 32;
/// The most patches; a larger image is scaled down.
const PATCHES_MAX: u64 = 1536;

/// How closely the model was asked to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Detail {
    /// Not said, or `auto`: counted as `high`.
    #[default]
    Auto,
    /// `low`.
    Low,
    /// `high`, and any other wish.
    High,
}

impl Detail {
    /// The detail of a request's `detail` field; unknown words count as `high`, the dearest.
    #[must_use]
    pub fn from_request(word: &str) -> Self {
        match word {
            "auto" => Self::Auto,
            "low" => Self::Low,
            _ => Self::High,
        }
    }
}

/// How a model family counts an image, as OpenAI's guide "Images and vision", part "Calculating
/// costs", has it.
///
/// *Tiles*: the image is fitted into 2048 by 2048 pixels, its shortest side brought down to 768
/// (never up), and each 512-pixel tile that covers it costs the same, beside a base. Low detail
/// costs the base alone. *Patches*: the 32-pixel patches that cover it, at most 1536 after scaling
/// down, times a multiplier, whatever the detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum ImageRule {
    /// `gpt-4o`: base 85, tile 170. GPT-4o, GPT-4.1, GPT-4.5.
    Gpt4o,
    /// `gpt-4o-mini`: base 2833, tile 5667.
    Gpt4oMini,
    /// `gpt-5`: base 70, tile 140.
    Gpt5,
    /// `o1`: base 75, tile 150. o1, o1-pro, o3.
    O1,
    /// `computer-use`: base 65, tile 129.
    ComputerUse,
    /// `patch-1.62`: GPT-4.1 mini, GPT-5 mini.
    Patch162,
    /// `patch-1.72`: o4-mini.
    Patch172,
    /// `patch-2.46`: GPT-4.1 nano, GPT-5 nano.
    Patch246,
}

/// The two ways of counting, with their numbers.
enum Price {
    Tiles { base: u64, tile: u64 },
    Patches { hundredths: u64 },
}

impl ImageRule {
    /// All rules.
    pub const ALL: [Self; 8] = [
        Self::Gpt4o,
        Self::Gpt4oMini,
        Self::Gpt5,
        Self::O1,
        Self::ComputerUse,
        Self::Patch162,
        Self::Patch172,
        Self::Patch246,
    ];

    /// The name, as [`FromStr`] takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gpt4o => "gpt-4o",
            Self::Gpt4oMini => "gpt-4o-mini",
            Self::Gpt5 => "gpt-5",
            Self::O1 => "o1",
            Self::ComputerUse => "computer-use",
            Self::Patch162 => "patch-1.62",
            Self::Patch172 => "patch-1.72",
            Self::Patch246 => "patch-2.46",
        }
    }

    /// The names of all rules.
    #[must_use]
    pub fn names() -> [&'static str; 8] {
        Self::ALL.map(Self::name)
    }

    /// The tokens of an image of `size` (width, height) pixels. Without a size, or with one that
    /// cannot be, it is the most that an image of this detail can cost.
    #[must_use]
    pub fn tokens(self, size: Option<(u32, u32)>, detail: Detail) -> u64 {
        let size = size.filter(|(width, height)| *width > 0 && *height > 0);
        let size = size.map(|(width, height)| (u64::from(width), u64::from(height)));
        match (self.price(), detail) {
            (Price::Tiles { base, .. }, Detail::Low) => base,
            (Price::Tiles { base, tile }, Detail::Auto | Detail::High) => {
                base + tile * size.map_or(TILES_MAX, tiles)
            }
            (Price::Patches { hundredths }, Detail::Auto | Detail::Low | Detail::High) => {
                (size.map_or(PATCHES_MAX, patches) * hundredths).div_ceil(100)
            }
        }
    }

    /// The most that any image can cost.
    #[must_use]
    pub fn tokens_max(self) -> u64 {
        self.tokens(None, Detail::High)
    }

    const fn price(self) -> Price {
        match self {
            Self::Gpt4o => Price::Tiles {
                base: 85,
                tile: 170,
            },
            Self::Gpt4oMini => Price::Tiles {
                base: 2833,
                tile: 5667,
            },
            Self::Gpt5 => Price::Tiles {
                base: 70,
                tile: 140,
            },
            Self::O1 => Price::Tiles {
                base: 75,
                tile: 150,
            },
            Self::ComputerUse => Price::Tiles {
                base: 65,
                tile: 129,
            },
            Self::Patch162 => Price::Patches { hundredths: 162 },
            Self::Patch172 => Price::Patches { hundredths: 172 },
            Self::Patch246 => Price::Patches { hundredths: 246 },
        }
    }
}

/// The tiles that cover the image after both reductions. Sides are rounded to the nearest pixel:
/// 2049 by 513 is billed as two rows of tiles and 2050 by 513 as one.
fn tiles((width, height): (u64, u64)) -> u64 {
    let (mut long, mut short) = (width.max(height), width.min(height));
    if long > TILED_LONG_SIDE_MAX {
        short = rounded(short * TILED_LONG_SIDE_MAX, long).max(1);
        long = TILED_LONG_SIDE_MAX;
    }
    if short > TILED_SHORT_SIDE_MAX {
        long = rounded(long * TILED_SHORT_SIDE_MAX, short);
        short = TILED_SHORT_SIDE_MAX;
    }
    long.div_ceil(TILE) * short.div_ceil(TILE)
}

const fn rounded(numerator: u64, denominator: u64) -> u64 {
    (numerator + denominator / 2) / denominator
}

/// The patches that cover the image after it was scaled down, by the guide's formula: once so that
/// the area fits, and once more so that one side is a whole number of patches.
///
/// Users have seen the full 1536 billed where the formula gives a little less (4000 by 1474: 1449).
fn patches((width, height): (u64, u64)) -> u64 {
    let plain = width.div_ceil(PATCH).saturating_mul(height.div_ceil(PATCH));
    if plain <= PATCHES_MAX {
        return plain;
    }
    let (width, height) = (width as f64, height as f64);
    let scale = (PATCHES_MAX as f64 / (width * height)).sqrt();
    let (columns, rows) = (width * scale, height * scale);
    if columns < 1.0 || rows < 1.0 {
        // A side that is thinner than a patch has no whole number of them.
        return PATCHES_MAX;
    }
    let shrink = (columns.floor() / columns).min(rows.floor() / rows);
    // What is a whole number but for the last bit of a float is that number.
    let side = |patches: f64| (patches * shrink - 1e-9).ceil() as u64;
    (side(columns) * side(rows)).min(PATCHES_MAX)
}

impl fmt::Display for ImageRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<ImageRule> for &'static str {
    fn from(rule: ImageRule) -> Self {
        rule.name()
    }
}

impl FromStr for ImageRule {
    type Err = TokensError;

    fn from_str(name: &str) -> Result<Self, TokensError> {
        let found = Self::ALL.into_iter().find(|rule| rule.name() == name);
        found.ok_or_else(|| TokensError::UnknownImageRule {
            given: shortened(name),
        })
    }
}

impl TryFrom<String> for ImageRule {
    type Error = TokensError;

    fn try_from(name: String) -> Result<Self, TokensError> {
        name.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_round_trip() {
        for rule in ImageRule::ALL {
            assert_eq!(rule.to_string().parse(), Ok(rule));
        }
        let error = "gpt-9".parse::<ImageRule>().unwrap_err().to_string();
        assert!(
            error.contains("gpt-9") && error.contains("patch-1.62"),
            "{error}"
        );
    }

    #[test]
    fn published_and_billed_examples() {
        let high =
            |rule: ImageRule, width, height| rule.tokens(Some((width, height)), Detail::High);
        // The guide's own.
        assert_eq!(high(ImageRule::Gpt4o, 1024, 1024), 765);
        assert_eq!(high(ImageRule::Gpt4o, 2048, 4096), 1105);
        assert_eq!(ImageRule::Gpt4o.tokens(Some((4096, 8192)), Detail::Low), 85);
        assert_eq!(patches((1024, 1024)), 1024);
        assert_eq!(patches((1800, 2400)), 1452);
        // Bills that users published.
        assert_eq!(high(ImageRule::Gpt4o, 2049, 513), 1445);
        assert_eq!(high(ImageRule::Gpt4o, 2050, 513), 765);
        assert_eq!(patches((2400, 1800)), 1452);
        assert_eq!(patches((1, 100_000)), 1536);
        // The other families.
        assert_eq!(high(ImageRule::Gpt4oMini, 512, 512), 8500);
        assert_eq!(high(ImageRule::Gpt5, 512, 512), 210);
        assert_eq!(high(ImageRule::O1, 1, 1), 225);
        assert_eq!(high(ImageRule::ComputerUse, 513, 512), 65 + 2 * 129);
        assert_eq!(high(ImageRule::Patch162, 1024, 1024), 1659);
        assert_eq!(high(ImageRule::Patch172, 32, 32), 2);
        assert_eq!(high(ImageRule::Patch246, 33, 32), 5);
    }

    proptest! {
        #[test]
        fn never_above_the_worst_case_and_never_nothing(width in any::<u32>(), height in any::<u32>(), shift in 0..31_u32) {
            for rule in ImageRule::ALL {
                for detail in [Detail::Auto, Detail::Low, Detail::High] {
                    for size in [(width, height), (width >> shift, height), (width >> shift, height >> shift)] {
                        let tokens = rule.tokens(Some(size), detail);
                        prop_assert!(tokens > 0);
                        prop_assert!(tokens <= rule.tokens(None, detail), "{rule} {size:?} {detail:?}");
                        prop_assert!(tokens <= rule.tokens_max());
                    }
                }
            }
        }
    }
}
