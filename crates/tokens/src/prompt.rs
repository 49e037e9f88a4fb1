//! The prompt: what a request's messages, tools, images and files cost, by rules kept as data.

use std::borrow::Cow;

use crate::{Detail, Factor, ImageRule, Lesson, Tokenizer, Usage, tool};

/// Tokens around one message.
const PER_MESSAGE: u64 = 3;
/// A role is one token: `system`, `developer`, `user`, `assistant`, `tool` and `function` all are.
const PER_ROLE: u64 = 1;
/// Tokens around the name of a message's author.
const PER_NAME: u64 = 1;
/// The reply is begun for the model: `<|start|>assistant<|message|>`.
const PER_REPLY: u64 = 3;
/// Audio of unknown length is taken as the thinnest there is, 8 kbit/s MP3 (ISO 13818-3): so many
/// bytes a second. No audio counts more than that.
const AUDIO_BYTES_PER_SECOND: u64 = 1000;
/// A token for each 100 ms that a user sends (OpenAI's guide "Managing costs" of realtime speech).
pub const AUDIO_TOKENS_PER_SECOND: u64 = 10;
/// Gemini's rate (Google's guide "Understand and count tokens").
pub const GEMINI_AUDIO_TOKENS_PER_SECOND: u64 = 32;

/// What Claude is told about tools as soon as it is given one (Anthropic's guide "Tool use", pricing:
/// 346 where it may choose, 313 where it must call one).
pub const CLAUDE_TOOL_TOKENS: u64 = 346;

/// One thing in a prompt that costs tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A message began: its framing and its role. The role is not also given as text.
    Message,
    /// The name of a message's author.
    Name(Cow<'a, str>),
    /// Text: content, refusals, the names and arguments of tool calls, tool call ids.
    Text(Cow<'a, str>),
    /// An image, with width and height in pixels where they are known; see
    /// [`data_url_size`](crate::data_url_size).
    Image {
        /// Width and height in pixels.
        size: Option<(u32, u32)>,
        /// How closely the model is to look.
        detail: Detail,
    },
    /// Audio of so many bytes, decoded from base64.
    Audio {
        /// Bytes of the sound file.
        bytes: usize,
        /// How long it is, where its beginning says so; see [`sound_millis`](crate::sound_millis).
        millis: Option<u64>,
    },
    /// A file of so many bytes, decoded from base64.
    File {
        /// Bytes of the file.
        bytes: usize,
    },
    /// The definition of a tool.
    Tool {
        /// Its name.
        name: Cow<'a, str>,
        /// Its description, or nothing.
        description: Cow<'a, str>,
        /// The JSON of its `parameters`, or nothing.
        parameters: &'a str,
    },
    /// The JSON schema of a `response_format`. No rule is published: it counts as its JSON.
    Schema(&'a str),
}

/// How one model counts a prompt.
///
/// Published rules: messages and names as in the OpenAI cookbook, "How to count tokens with
/// tiktoken" (3 for each message, 1 for each name, 3 for the reply); tool definitions as in the
/// same text, and what the provider tells the model about tools; images as [`ImageRule`] says; audio by
/// its length, at a rate of the model's. For files nothing is published: they count a token a byte.
/// The tokenizer's factor applies to text, not to framing and images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptRules {
    tokenizer: Tokenizer,
    image: ImageRule,
    audio_per_second: u64,
    /// What the provider tells the model about tools beside their definitions.
    tool_instructions: u64,
    context_window: Option<u64>,
}

impl PromptRules {
    /// The rules of a model with this tokenizer and this way of counting images.
    #[must_use]
    pub const fn new(tokenizer: Tokenizer, image: ImageRule) -> Self {
        Self {
            tokenizer,
            image,
            audio_per_second: AUDIO_TOKENS_PER_SECOND,
            tool_instructions: 0,
            context_window: None,
        }
    }

    /// The same rules, where no prompt counts more than `tokens`: a longer one is refused by the
    /// provider or cut, and either way not billed.
    #[must_use]
    pub const fn with_context_window(self, tokens: u64) -> Self {
        Self {
            context_window: Some(tokens),
            ..self
        }
    }

    /// The same rules with another rate for audio, in tokens per second.
    #[must_use]
    pub const fn with_audio_per_second(self, tokens: u64) -> Self {
        Self {
            audio_per_second: tokens,
            ..self
        }
    }

    /// The same rules, where the provider bills so many tokens of its own as soon as there are tools.
    #[must_use]
    pub const fn with_tool_instructions(self, tokens: u64) -> Self {
        Self {
            tool_instructions: tokens,
            ..self
        }
    }

    /// The same rules with another factor: one that was learned.
    #[must_use]
    pub const fn with_factor(self, factor: Factor) -> Self {
        Self {
            tokenizer: self.tokenizer.with_factor(factor),
            ..self
        }
    }

    /// The tokenizer.
    #[must_use]
    pub const fn tokenizer(&self) -> Tokenizer {
        self.tokenizer
    }

    /// The tokens of a prompt. Text, framing, images, files and tools are in `prompt`, as
    /// OpenAI's `prompt_tokens` has them; audio is in `audio_prompt`.
    ///
    /// It takes time in proportion to [`PromptRules::text_bytes`]: from
    /// [`OFF_THREAD_BYTES_MIN`](crate::OFF_THREAD_BYTES_MIN) on, count off the async threads.
    #[must_use]
    pub fn count(&self, parts: &[Part<'_>]) -> Usage {
        self.usage(&self.measure(parts))
    }

    /// What a prompt comes to before the factor. As costly as [`PromptRules::count`].
    #[must_use]
    pub fn measure(&self, parts: &[Part<'_>]) -> Measure {
        let mut measure = Measure::default();
        for part in parts {
            self.add(&mut measure, part);
        }
        measure.frame(PER_REPLY);
        if measure.any_tool {
            measure.tool_framing += tool::FUNC_END;
            measure.frame(self.tool_instructions);
        }
        measure
    }

    /// The tokens of a prompt that was measured.
    #[must_use]
    pub fn usage(&self, measure: &Measure) -> Usage {
        let text = self.tokenizer.factor().scale(measure.text);
        let prompt = text.saturating_add(measure.framing());
        let window = self.context_window.unwrap_or(u64::MAX);
        let audio_prompt = measure.audio.min(window);
        Usage {
            prompt: prompt.min(window - audio_prompt),
            audio_prompt,
            ..Usage::default()
        }
    }

    /// A number that the total of [`PromptRules::count`] does not exceed, without tokenizing, for
    /// a request body of so many bytes with so many images.
    ///
    /// It holds for the parts of any JSON body in OpenAI's form: a token of text is at least a byte
    /// of it, and the tokens of framing are fewer than the bytes of the JSON around the text. An
    /// image that is only linked costs more than its bytes, so images count beside, each at its
    /// most; the base64 of images may be left out of `body_bytes`. What a tokenizer makes longer
    /// before it cuts it counts as long as it may become, and tools are taken to be there.
    #[must_use]
    pub fn upper_bound(&self, body_bytes: usize, images: usize) -> u64 {
        let longer = self.tokenizer.encoding().tokens_per_byte_max();
        let bytes = (body_bytes as u64).saturating_mul(longer);
        let text = self.tokenizer.factor().scale(bytes).max(bytes);
        let images = self.image.tokens_max().saturating_mul(images as u64);
        text.saturating_add(images)
            .saturating_add(PER_REPLY)
            .saturating_add(self.tool_instructions)
            .min(self.context_window.unwrap_or(u64::MAX))
    }

    /// The bytes that [`PromptRules::count`] would tokenize.
    #[must_use]
    pub fn text_bytes(parts: &[Part<'_>]) -> usize {
        let bytes = |part: &Part<'_>| match part {
            Part::Message | Part::Image { .. } | Part::Audio { .. } | Part::File { .. } => 0,
            Part::Name(text) | Part::Text(text) => text.len(),
            Part::Tool {
                name,
                description,
                parameters,
            } => name.len() + description.len() + parameters.len(),
            Part::Schema(json) => json.len(),
        };
        parts.iter().map(bytes).fold(0, usize::saturating_add)
    }

    fn add(&self, sum: &mut Measure, part: &Part<'_>) {
        match part {
            Part::Message => sum.frame(PER_MESSAGE + PER_ROLE),
            Part::Name(name) => {
                sum.frame(PER_NAME);
                sum.text += self.tokenizer.plain_count(name);
            }
            Part::Text(text) => sum.text += self.tokenizer.plain_count(text),
            Part::Image { size, detail } => {
                sum.any_media = true;
                sum.frame(self.image.tokens(*size, *detail));
            }
            Part::Audio { bytes, millis } => {
                sum.any_media = true;
                let rate = self.audio_per_second;
                let most = (*bytes as u64)
                    .saturating_mul(rate)
                    .div_ceil(AUDIO_BYTES_PER_SECOND);
                let by_length = |millis: u64| millis.saturating_mul(rate).div_ceil(1000);
                let tokens = millis.map_or(most, |millis| by_length(millis).min(most));
                sum.audio = sum.audio.saturating_add(tokens);
            }
            Part::File { bytes } => {
                sum.any_media = true;
                sum.frame(*bytes as u64);
            }
            Part::Tool {
                name,
                description,
                parameters,
            } => {
                let tool = tool::count(self.tokenizer, name, description, parameters);
                sum.text += tool.text;
                sum.tool_text += tool.text;
                sum.tool_framing += tool.framing;
                sum.any_tool = true;
            }
            Part::Schema(json) => sum.text += self.tokenizer.plain_count(json),
        }
    }
}

/// What a prompt comes to: the encoding's own count of its text, before the factor, and what is
/// around the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    text: u64,
    /// Of the text, that of tools.
    tool_text: u64,
    framing: u64,
    tool_framing: i64,
    any_tool: bool,
    audio: u64,
    any_media: bool,
}

impl Measure {
    /// What a provider's report of this prompt says about the factor. Nothing where it says little:
    /// of pictures, sound and files, of a prompt that is mostly tools (which every provider writes
    /// out in its own way), and of a short one. Cached tokens are tokens of the prompt all the same.
    #[must_use]
    pub fn lesson(&self, reported: &Usage) -> Option<Lesson> {
        if self.any_media || self.tool_text > self.text / 2 {
            return None;
        }
        let text = reported.prompt_total().checked_sub(self.framing())?;
        Lesson::new(self.text, text)
    }

    /// Everything that the factor is not for, audio aside.
    fn framing(&self) -> u64 {
        self.framing.saturating_add_signed(self.tool_framing)
    }

    fn frame(&mut self, tokens: u64) {
        self.framing = self.framing.saturating_add(tokens);
    }
}
