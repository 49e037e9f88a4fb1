//! Features: what one model can do, where the models of a dialect differ, as a provider file writes it.

use serde::Deserialize;

/// What a model can do. The default is a model that does not think and takes everything else.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Features {
    /// Whether it thinks, and what makes it.
    pub thinking: Thinking,
    /// The levels of effort that can be asked for, from the lowest; empty where none can.
    pub effort: Vec<Effort>,
    /// Whether temperature and its kin may differ from their defaults.
    pub sampling: bool,
    /// Whether it can be made to call a tool.
    pub forced_tools: bool,
    /// Whether it can go on with a message of its own that the request ends in.
    pub prefill: bool,
}

impl Features {
    /// Those of a model of which the provider's file says nothing.
    pub const PLAIN: Self = Self {
        thinking: Thinking::Never,
        effort: Vec::new(),
        sampling: true,
        forced_tools: true,
        prefill: true,
    };

    /// The highest level that can be asked for and is at most `wished`, else the lowest one.
    #[must_use]
    pub fn effort_at_most(&self, wished: Effort) -> Option<Effort> {
        let at_most = self.effort.iter().filter(|level| **level <= wished).max();
        at_most.or_else(|| self.effort.iter().min()).copied()
    }
}

impl Default for Features {
    fn default() -> Self {
        Self::PLAIN
    }
}

/// Whether a model thinks before it answers. What it thinks is billed in full and shown in part or
/// not at all, so that a request that makes it think cannot be watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thinking {
    /// It does not.
    #[default]
    Never,
    /// When asked, up to a number of tokens.
    Budget,
    /// When asked, as much as it finds right.
    Adaptive,
    /// Unless asked not to, as much as it finds right.
    On,
    /// Whatever it is asked.
    Always,
}

/// How much a model is to spend on an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// `minimal`.
    Minimal,
    /// `low`.
    Low,
    /// `medium`.
    Medium,
    /// `high`.
    High,
    /// `xhigh`.
    Xhigh,
    /// `max`.
    Max,
}

impl Effort {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_level_below_is_taken_else_the_lowest() {
        let features =
            |levels: &str| -> Features { toml::from_str(&format!("effort = {levels}")).unwrap() };
        let three = features(r#"["low", "medium", "high"]"#);
        assert_eq!(three.effort_at_most(Effort::Max), Some(Effort::High));
        assert_eq!(three.effort_at_most(Effort::Medium), Some(Effort::Medium));
        let dear = features(r#"["high", "max"]"#);
        assert_eq!(dear.effort_at_most(Effort::Low), Some(Effort::High));
        assert_eq!(Features::PLAIN.effort_at_most(Effort::Low), None);
    }

    #[test]
    fn words_outside_the_vocabulary_are_refused() {
        assert_eq!(toml::from_str::<Features>("").unwrap(), Features::PLAIN);
        for bad in [
            "thinking = \"maybe\"",
            "effort = [\"huge\"]",
            "vision = true",
        ] {
            assert!(toml::from_str::<Features>(bad).is_err(), "{bad}");
        }
    }
}
