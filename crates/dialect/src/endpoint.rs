//! The endpoints of OpenAI's API that a model can serve, by the names that provider files use.

use serde::{Deserialize, Serialize};

/// Something that a model does, and its own path below a provider's base URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// Answers chats, in whichever of the client's dialects.
    Chat,
    /// Continues a text.
    Completions,
    /// Turns texts into vectors.
    Embeddings,
    /// Says what is objectionable in a text.
    Moderations,
    /// Orders documents by how well they answer a question.
    Rerank,
    /// Makes images of a text.
    ImageGenerations,
    /// Makes images of images and a text.
    ImageEdits,
    /// Reads a text aloud.
    Speech,
    /// Writes down what is said.
    Transcriptions,
    /// Writes down in English what is said.
    Translations,
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Self; 10] = [
        Self::Chat,
        Self::Completions,
        Self::Embeddings,
        Self::Moderations,
        Self::Rerank,
        Self::ImageGenerations,
        Self::ImageEdits,
        Self::Speech,
        Self::Transcriptions,
        Self::Translations,
    ];

    /// Its path after a base URL that ends with `/v1`; ours and, by default, a provider's.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Moderations => "/moderations",
            Self::Rerank => "/rerank",
            Self::ImageGenerations => "/images/generations",
            Self::ImageEdits => "/images/edits",
            Self::Speech => "/audio/speech",
            Self::Transcriptions => "/audio/transcriptions",
            Self::Translations => "/audio/translations",
        }
    }

    /// Its name in the books and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat.completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Moderations => "moderations",
            Self::Rerank => "rerank",
            Self::ImageGenerations => "images.generations",
            Self::ImageEdits => "images.edits",
            Self::Speech => "audio.speech",
            Self::Transcriptions => "audio.transcriptions",
            Self::Translations => "audio.translations",
        }
    }

    /// Whether its requests are forms with files in them, not JSON.
    #[must_use]
    pub const fn takes_form(self) -> bool {
        match self {
            Self::ImageEdits | Self::Transcriptions | Self::Translations => true,
            Self::Chat
            | Self::Completions
            | Self::Embeddings
            | Self::Moderations
            | Self::Rerank
            | Self::ImageGenerations
            | Self::Speech => false,
        }
    }
}
