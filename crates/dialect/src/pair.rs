//! Who speaks what: a client's dialect and a provider's, and which of the two an answer is written in.

use std::sync::Arc;

use bytes::Bytes;

use crate::anthropic;
use crate::client::Bill;
use crate::client_dialect::ClientDialect;
use crate::error::{DecodeError, RequestError};
use crate::messages::{self, Composed, Composing, MessagesRequest};
use crate::openai::{Answer, Edit, WireRequest};
use crate::origin::Origin;
use crate::quirks::{Quirks, ResponsesApi};
use crate::request::{ChatRequest, RequestLimits};
use crate::responses::{self, ResponsesRequest, Searches};
use crate::writer::{Keep, StreamNames, StreamWriter};
use crate::{Decoder, Dialect};

/// A client's dialect before a provider's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    client: ClientDialect,
    provider: Dialect,
    native: bool,
}

/// What a request that travels as it came needs to know beside what every request does.
#[derive(Clone, Copy, Debug)]
pub struct NativeEdit<'a> {
    /// The values of the client's `anthropic-beta`.
    pub betas: &'a [&'a str],
    /// Whether the provider may keep the response, where it keeps any.
    pub keep: bool,
    /// Whether the response that it goes on with is one that the client may go on with.
    pub continues: bool,
    /// The ids of files at the provider that are the client's own.
    pub files: &'a [&'a str],
    /// The ids of items that the provider keeps for the client.
    pub items: &'a [&'a str],
}

/// A client's request in its own dialect.
#[derive(Clone, Debug)]
pub enum ClientRequest<'a> {
    /// OpenAI's chat completions.
    Chat(ChatRequest<'a>),
    /// Anthropic's Messages.
    Messages(MessagesRequest<'a>),
    /// OpenAI's Responses.
    Responses(ResponsesRequest<'a>),
}

impl Pair {
    /// A client of `client` before a provider of `provider` with `quirks`.
    #[must_use]
    pub fn new(client: ClientDialect, provider: Dialect, quirks: &Quirks) -> Self {
        let native = match client {
            ClientDialect::Chat => false,
            ClientDialect::Messages => anthropic::Host::of(provider).is_some(),
            ClientDialect::Responses => match quirks.responses {
                ResponsesApi::Translated => false,
                ResponsesApi::Stateless | ResponsesApi::Stored => provider == Dialect::OpenAi,
            },
        };
        Self {
            client,
            provider,
            native,
        }
    }

    /// What the client speaks.
    #[must_use]
    pub const fn client(self) -> ClientDialect {
        self.client
    }

    /// Whether requests and answers travel as they are, where a chat request would have to be
    /// composed otherwise.
    #[must_use]
    pub const fn is_native(self) -> bool {
        self.native
    }

    /// Reads the body of a 200 answer to a request that did not stream, as [`Dialect::decode`] does.
    ///
    /// # Errors
    /// Not an answer of the provider's dialect, or an error inside it ([`DecodeError::Upstream`]).
    pub fn decode(
        self,
        body: Bytes,
        quirks: &Quirks,
        origin: Origin,
    ) -> Result<Answer, DecodeError> {
        match self.client {
            ClientDialect::Messages if self.native => anthropic::forward::decode(body),
            ClientDialect::Responses if self.native => responses::forward::decode(body),
            ClientDialect::Chat | ClientDialect::Messages | ClientDialect::Responses => {
                self.provider.decode(body, quirks, origin)
            }
        }
    }

    /// A decoder for one stream.
    #[must_use]
    pub fn decoder(self, quirks: Arc<Quirks>, origin: Origin) -> Decoder {
        match self.client {
            ClientDialect::Messages if self.native => Decoder::Forward(Box::default()),
            ClientDialect::Responses if self.native => Decoder::ForwardResponses(Box::default()),
            ClientDialect::Chat | ClientDialect::Messages | ClientDialect::Responses => {
                self.provider.decoder(quirks, origin)
            }
        }
    }

    /// Writes one stream to the client. A chat's usage is shown only to whoever asked for it.
    #[must_use]
    pub fn writer(self, names: StreamNames, include_usage: bool) -> StreamWriter {
        match self.client {
            ClientDialect::Messages if self.native => StreamWriter::native_messages(names),
            ClientDialect::Messages => StreamWriter::messages(names),
            ClientDialect::Chat => StreamWriter::chat(names, include_usage),
            ClientDialect::Responses if self.native => StreamWriter::native_responses(names),
            ClientDialect::Responses => StreamWriter::responses(names),
        }
    }

    /// A plain answer with the bill in it, as the client reads it.
    #[must_use]
    pub fn answer(self, answer: &Answer, bill: &Bill<'_>, names: &StreamNames) -> Bytes {
        match self.client {
            ClientDialect::Messages if self.native => messages::native_answer(answer, bill),
            ClientDialect::Messages => messages::answer(answer, bill, names),
            ClientDialect::Chat => answer.with_bill(bill),
            ClientDialect::Responses if self.native => {
                responses::native_answer(answer, bill, names)
            }
            ClientDialect::Responses => responses::answer(answer, bill, names),
        }
    }
}

impl<'a> ClientRequest<'a> {
    /// Reads a request body in a client's dialect.
    ///
    /// # Errors
    /// What CONTRACT 3 answers with 400.
    pub fn parse(
        client: ClientDialect,
        body: &'a [u8],
        limits: &RequestLimits,
    ) -> Result<Self, RequestError> {
        match client {
            ClientDialect::Chat => ChatRequest::parse(body, limits).map(Self::Chat),
            ClientDialect::Messages => MessagesRequest::parse(body, limits).map(Self::Messages),
            ClientDialect::Responses => ResponsesRequest::parse(body, limits).map(Self::Responses),
        }
    }

    /// The model asked for.
    #[must_use]
    pub fn model(&self) -> &str {
        match self {
            Self::Chat(request) => request.model(),
            Self::Messages(request) => request.model(),
            Self::Responses(request) => request.model(),
        }
    }

    /// What an answer repeats of it, and whether it is kept; empty where it repeats nothing.
    #[must_use]
    pub fn repeated(&self, keep: Keep) -> String {
        match self {
            Self::Chat(_) | Self::Messages(_) => String::new(),
            Self::Responses(request) => request.repeated(keep != Keep::Nobody),
        }
    }

    /// The service tier that an answer says it has until its provider says which, as JSON; empty
    /// where it says none.
    #[must_use]
    pub fn tier(&self) -> String {
        match self {
            Self::Chat(_) | Self::Messages(_) => String::new(),
            Self::Responses(request) => request.tier().to_owned(),
        }
    }

    /// The same as a chat request; `None` where it is one.
    ///
    /// # Errors
    /// Something in it that no provider could read.
    pub fn compose(&self, target: &Composing<'_>) -> Result<Option<Composed>, RequestError> {
        match self {
            Self::Chat(_) => Ok(None),
            Self::Messages(request) => request.compose(target).map(Some),
            Self::Responses(request) => request.compose(target).map(Some),
        }
    }

    /// The request for a `provider` that speaks the client's own dialect; `None` for one that does
    /// not, for which [`Dialect::encode`] writes it as a chat.
    ///
    /// # Errors
    /// What the provider cannot do, or what has a price of its own.
    pub fn encode_native(
        &self,
        provider: Dialect,
        edit: &Edit<'_>,
        quirks: &Quirks,
        native: &NativeEdit<'_>,
    ) -> Result<Option<WireRequest>, RequestError> {
        match self {
            Self::Chat(_) => Ok(None),
            Self::Messages(request) => anthropic::Host::of(provider)
                .map(|host| anthropic::native::encode(request, edit, quirks, native.betas, host))
                .transpose(),
            Self::Responses(request) => {
                responses::native::encode(request, edit, quirks, native).map(Some)
            }
        }
    }

    /// What it may make the provider search, where the provider gets it as it came; `None` where it
    /// brings no such tool.
    #[must_use]
    pub fn searches(&self) -> Option<Searches> {
        match self {
            Self::Chat(_) | Self::Messages(_) => None,
            Self::Responses(request) => request.searches(),
        }
    }

    /// The least output limit that the provider takes, where it gets the request as it came.
    #[must_use]
    pub const fn least_output(&self) -> u64 {
        match self {
            Self::Chat(_) | Self::Messages(_) => 1,
            Self::Responses(_) => responses::native::LEAST_OUTPUT,
        }
    }
}
