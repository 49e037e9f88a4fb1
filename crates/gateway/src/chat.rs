//! `POST /v1/chat/completions`, and its like in other dialects, from top to bottom: the request path.

use std::{ops::Deref, sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    response::Response,
};
use billing::{Charge, Price, PriceId};
use bytes::Bytes;
use dialect::{
    ChatRequest, ClientDialect, ClientRequest, Composing, Dialect, Edit, Endpoint, Keep,
    NativeEdit, Pair, RequestError, RequestLimits, StreamNames, Thinking, WireRequest,
};
use http::HeaderValue;
use store::{KeyRecord, OwnedObject};

use crate::{
    admit::{self, Admitted, Ask},
    answer::{self, X_MAX_TOKENS},
    app::Shared,
    arrival::{self, Asked},
    catalogue::Model,
    counting,
    error::ApiError,
    kept::{Conversation, Keeping},
    metered::MeteredBody,
    owned,
    recording::Recording,
    stream::{Stream, origin, unix_seconds},
    targets::{self, Missed},
    upstream::{Failure, Reply, let_others_come_as_far},
};

/// Switches features of Anthropic's on.
const ANTHROPIC_BETA: &str = "anthropic-beta";

/// A request whose targets are asked.
struct Chat<'a> {
    speaks: Speaks,
    asked: &'a Asked,
    /// As the client said it.
    first: &'a ClientRequest<'a>,
    /// The same with all that was said before, where it goes on with a response that is kept here.
    said: &'a ClientRequest<'a>,
    conversation: &'a Conversation,
    /// What it names of the key's own at providers.
    own: &'a [OwnedObject],
}

/// What one attempt upstream needs to know.
struct Attempt<'a> {
    speaks: Speaks,
    asked: &'a Asked,
    pair: Pair,
    first: &'a ClientRequest<'a>,
    said: &'a ClientRequest<'a>,
    conversation: &'a Conversation,
    own: &'a [OwnedObject],
    /// The request as a chat request, and the bytes that it was read from.
    request: &'a ChatRequest<'a>,
    body: &'a Bytes,
    model: &'a Arc<Model>,
}

/// Answers a chat completion, plain or streamed.
///
/// # Errors
/// Every row of CONTRACT 3.
pub async fn create(State(app): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let speaks = Speaks {
        client: ClientDialect::Chat,
        endpoint: Endpoint::Chat,
    };
    serve(app, request, speaks).await
}

/// `POST /v1/completions`: continues a text, plain or streamed, where a provider has that.
///
/// # Errors
/// Every row of CONTRACT 3.
pub async fn complete(State(app): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let speaks = Speaks {
        client: ClientDialect::Chat,
        endpoint: Endpoint::Completions,
    };
    serve(app, request, speaks).await
}

/// `POST /v1/responses`: answers a request of OpenAI's Responses, plain or streamed, over any model.
///
/// # Errors
/// Every row of CONTRACT 3.
pub async fn respond(State(app): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let speaks = Speaks {
        client: ClientDialect::Responses,
        endpoint: Endpoint::Chat,
    };
    serve(app, request, speaks).await
}

/// What a client asks for, and how it says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speaks {
    /// How requests and answers look.
    pub(crate) client: ClientDialect,
    /// What a model must do to answer.
    pub(crate) endpoint: Endpoint,
}

impl Speaks {
    /// The name in the books and in metrics.
    fn name(self) -> &'static str {
        match self.client {
            ClientDialect::Chat => self.endpoint.as_str(),
            ClientDialect::Messages | ClientDialect::Responses => self.client.endpoint(),
        }
    }

    fn parse(self, body: &[u8]) -> Result<ClientRequest<'_>, RequestError> {
        let limits = RequestLimits::default();
        if self.endpoint == Endpoint::Completions {
            ChatRequest::parse_completion(body, &limits).map(ClientRequest::Chat)
        } else {
            ClientRequest::parse(self.client, body, &limits)
        }
    }
}

/// Answers a request in a client's dialect, plain or streamed.
///
/// # Errors
/// Every row of CONTRACT 3.
pub(crate) async fn serve(
    app: Shared,
    request: Request,
    speaks: Speaks,
) -> Result<Response, ApiError> {
    let check = move |asked: &Asked| {
        let said = speaks.parse(&asked.body)?;
        targets::serving(&asked.app, &asked.key, said.model(), speaks.endpoint).map(|_| ())
    };
    let run = move |asked, recording| run(speaks, asked, recording);
    arrival::serve(app, speaks.name(), request, check, run).await
}

/// Admits a request and asks its targets in order, until one answers.
async fn run(
    speaks: Speaks,
    asked: Asked,
    mut recording: Option<Recording>,
) -> Result<Response, ApiError> {
    let said = speaks.parse(&asked.body)?;
    let mut targets = targets::serving(&asked.app, &asked.key, said.model(), speaks.endpoint)?;
    let own = owned::guard(&asked.app, &asked.key, &asked.body).await?;
    let conversation = Conversation::find(&asked, &said).await?;
    conversation.retain(&mut targets)?;
    let whole = conversation.whole();
    let whole = whole.map(|body| speaks.parse(body)).transpose()?;
    let chat = Chat {
        speaks,
        asked: &asked,
        first: &said,
        said: whole.as_ref().unwrap_or(&said),
        conversation: &conversation,
        own: &own,
    };
    targets::ask(&asked, &targets, &mut recording, &chat).await
}

/// What serves a model name for this key, in order; at least one.
pub(crate) fn permitted<'a>(
    app: &'a Shared,
    key: &KeyRecord,
    name: &str,
) -> Result<Vec<&'a Arc<Model>>, ApiError> {
    let targets = app.catalogue.resolve(name);
    if targets.is_empty() {
        return Err(ApiError::ModelNotFound);
    }
    let permitted: Vec<_> = targets.iter().filter(|m| may_use(key, name, m)).collect();
    if permitted.is_empty() {
        return Err(ApiError::NotPermitted(
            "This key may not use this model. Use one that GET /v1/models lists, or ask for another key.".into(),
        ));
    }
    Ok(permitted)
}

/// Whether a key may use a model under the name that was asked for.
fn may_use(key: &KeyRecord, asked: &str, model: &Model) -> bool {
    key.models.as_ref().is_none_or(|allowed| {
        allowed
            .iter()
            .any(|name| name == asked || **name == *model.id || **name == *model.full_name)
    })
}

impl targets::Attempt for Chat<'_> {
    async fn run(
        &self,
        model: &Arc<Model>,
        recording: &mut Option<Recording>,
    ) -> Result<Response, Missed> {
        let Self {
            speaks,
            asked,
            first,
            said,
            conversation,
            own,
        } = *self;
        let provider = &model.provider;
        let pair = Pair::new(speaks.client, provider.dialect, &provider.quirks);
        let (parsed, composed);
        let (request, body) = match said {
            ClientRequest::Chat(request) => (request, &asked.body),
            ClientRequest::Messages(_) | ClientRequest::Responses(_) => {
                composed = compose(said, pair, model)?;
                parsed = ChatRequest::parse(&composed, &RequestLimits::default())
                    .map_err(ApiError::from)?;
                (&parsed, &composed)
            }
        };
        let attempt = Attempt {
            speaks,
            asked,
            pair,
            first,
            said,
            conversation,
            own,
            request,
            body,
            model,
        };
        attempt.run(recording).await
    }
}

/// A request of another dialect as the chat request that this target is asked, or, where the target
/// gets it as it came, as the one that is counted and held for.
pub(crate) fn compose(
    said: &ClientRequest<'_>,
    pair: Pair,
    model: &Model,
) -> Result<Bytes, ApiError> {
    let quirks = &model.provider.quirks;
    let features = &model.features;
    let target = Composing {
        quirks,
        reasons: model.hidden_output || features.thinking != Thinking::Never,
        native: pair.is_native(),
        cache_marks: keeps_marked(model),
    };
    let Some(composed) = said.compose(&target)? else {
        return Err(ApiError::Internal);
    };
    match composed.beyond {
        Some(beyond) if !pair.is_native() && !quirks.drop_unsupported => Err(beyond.into()),
        Some(_) | None => Ok(composed.body),
    }
}

/// Whether a provider that the request is translated for keeps prompts where it is told to, and
/// nobody is charged for it by a price that is not known.
fn keeps_marked(model: &Model) -> bool {
    let written = |(price, _): &(Arc<Price>, PriceId)| price.rates(0).cache_write_5m.is_some();
    model.provider.dialect == Dialect::Bedrock && model.price.as_ref().is_some_and(written)
}

impl Deref for Attempt<'_> {
    type Target = Asked;

    fn deref(&self) -> &Asked {
        self.asked
    }
}

impl Attempt<'_> {
    async fn run(&self, recording: &mut Option<Recording>) -> Result<Response, Missed> {
        let (app, key) = (&self.app, &self.key);
        let tier = self.request.get("service_tier");
        let quoted = app.prices.quote(&app.store, key, self.model, tier).await?;
        let price = &quoted.priced.price;
        let ask = self.ask(price)?;
        let mut admitted = admit::hold(&app.ledger, &key.path, price, self.model, ask).await?;
        admitted.meter = admitted.meter.with_offer(quoted.offer);
        let wire = self.wire(&admitted)?;
        let clamped = admitted.clamped;
        let charge = self.start(admitted, quoted.priced.id)?;
        if let Some(recording) = recording {
            recording.may_owe();
            recording.max_tokens(clamped);
        }
        self.watched.goes_upstream();
        let now = Instant::now();
        self.watched.want(counting::wanted(
            &self.app,
            self.request,
            self.body,
            self.model,
            now,
        ));
        let upstream = match self.app.upstream.send(&self.model.provider, wire).await {
            Ok(upstream) => upstream,
            Err(failure) => return Err(Missed::failed(self, failure, Some(charge))),
        };
        let mut response = if self.request.stream() {
            Box::pin(self.stream(charge, upstream, recording)).await?
        } else {
            self.plain(charge, upstream, recording).await?
        };
        if let Some(tokens) = clamped {
            response
                .headers_mut()
                .insert(X_MAX_TOKENS, HeaderValue::from(tokens));
        }
        Ok(response)
    }

    /// What it may consume. What only a provider understands that gets the request as it came is
    /// asked for at its worst.
    fn ask(&self, price: &Price) -> Result<Ask, ApiError> {
        let ask = Ask::new(self.request, self.body, self.model);
        if !self.pair.is_native() {
            return Ok(ask);
        }
        let sent = self.conversation.whole().unwrap_or(&self.asked.body);
        let mut ask = ask.as_it_came(sent, self.model, self.said.least_output());
        if let Some((tokens, thought)) = self.conversation.remembered() {
            ask = ask.remembering(tokens, thought);
        }
        let Some(searches) = self.said.searches() else {
            return Ok(ask);
        };
        if price.base().search.is_none() {
            return Err(ApiError::Invalid {
                param: Some(format!("tools[{}]", searches.tool).into()),
                message: "Searches have a price of their own, and this model has none here: leave the tool out.".into(),
            });
        }
        Ok(ask.searching(searches.most, self.model))
    }

    fn wire(&self, admitted: &Admitted) -> Result<WireRequest, ApiError> {
        let mut wire = self.encode(admitted)?;
        if self.request.stream() {
            wire.accept(self.model.provider.dialect.framing());
        }
        Ok(wire)
    }

    fn encode(&self, admitted: &Admitted) -> Result<WireRequest, ApiError> {
        let edit = Edit {
            upstream_model: &self.model.upstream_id,
            output_limit: admitted.clamped,
            output_tokens_max: u64::from(self.model.output_tokens_max),
            features: &self.model.features,
            ask_stream_usage: self.request.stream(),
        };
        let provider = &self.model.provider;
        let quirks = &provider.quirks;
        if self.pair.is_native() {
            let betas = self.parts.headers.get_all(ANTHROPIC_BETA).iter();
            let betas: Vec<&str> = betas.filter_map(|value| value.to_str().ok()).collect();
            let here = |object: &&OwnedObject| *object.provider == *provider.name;
            let files = self.own.iter().filter(here);
            let files: Vec<&str> = files.map(|object| &*object.id).collect();
            let native = NativeEdit {
                betas: &betas,
                keep: self.conversation.keeps_there(self.pair, provider),
                continues: self.conversation.remembered().is_some(),
                files: &files,
                items: &self.conversation.items(),
            };
            if let Some(wire) = self
                .said
                .encode_native(provider.dialect, &edit, quirks, &native)?
            {
                return Ok(wire);
            }
        }
        if self.request.endpoint() == Endpoint::Completions {
            let quirks = provider.quirks.for_completions();
            let mut wire = provider.dialect.encode(self.request, &edit, &quirks)?;
            provider
                .path(Endpoint::Completions)
                .clone_into(&mut wire.path);
            return Ok(wire);
        }
        let wire = provider
            .dialect
            .encode(self.request, &edit, &provider.quirks)?;
        Ok(wire)
    }

    fn start(&self, admitted: Admitted, price_id: PriceId) -> Result<Charge, ApiError> {
        let endpoint = self.speaks.name();
        let facts = self.facts(endpoint, self.model, price_id, self.request.stream());
        let arrived = self.watched.arrived();
        Ok(admitted
            .hold
            .start(Arc::new(facts), admitted.meter, arrived)?)
    }

    fn keeping(&self) -> Option<Keeping> {
        self.conversation
            .keeping(self.asked, self.said, self.pair, self.model)
    }

    /// What an answer is called where its provider does not say.
    fn names(&self, keep: Keep) -> StreamNames {
        StreamNames {
            origin: origin(&self.watched, self.model),
            clock: unix_seconds,
            repeated: self.first.repeated(keep),
            tier: self.first.tier(),
            keep,
        }
    }

    async fn stream(
        &self,
        charge: Charge,
        upstream: Reply,
        recording: &mut Option<Recording>,
    ) -> Result<Response, Missed> {
        if !answer::is_event_stream(&upstream, self.model.provider.dialect.framing()) {
            let failure = Failure::Garbage("not an event stream".into());
            return Err(Missed::failed(self, failure, Some(charge)));
        }
        let include_usage = self.request.include_usage();
        let keeping = self.keeping();
        let names = self.names(keeping.as_ref().map_or(Keep::Nobody, Keeping::by));
        let provider = &self.model.provider;
        let decoder = self
            .pair
            .decoder(provider.quirks.clone(), names.origin.clone());
        let writer = self.pair.writer(names, include_usage);
        let framing = provider.dialect.framing();
        let stream = Stream::new(self.asked, charge, framing, decoder, writer, upstream);
        let settings = &self.app.settings;
        match MeteredBody::open(stream, settings.client_gone, settings.drain_max).await {
            Ok(mut body) => {
                body.keep(keeping);
                if let Some(recording) = recording.take() {
                    body.record(recording);
                }
                Ok(answer::events(axum::body::Body::new(body)))
            }
            Err(not_opened) => Err(Missed::failed(self, not_opened.failure, not_opened.charge)),
        }
    }

    async fn plain(
        &self,
        charge: Charge,
        upstream: Reply,
        recording: &mut Option<Recording>,
    ) -> Result<Response, Missed> {
        let read = answer::read(upstream, &self.app.settings).await;
        let keeping = self.keeping();
        let names = self.names(keeping.as_ref().map_or(Keep::Nobody, Keeping::by));
        let (pair, provider) = (self.pair, &self.model.provider);
        let origin = names.origin.clone();
        match read.and_then(|bytes| answer::decode(bytes, pair, provider, origin)) {
            Ok(decoded) => {
                // Not later: what is charged goes out at once, so that nobody pays for what a killed
                // process had ready.
                let_others_come_as_far().await;
                let settled = answer::settle(&self.app, charge, &decoded, &self.watched).await?;
                self.watched.succeeded();
                let body = answer::body(&decoded, self.pair, &settled, &names);
                if let Some(keeping) = keeping {
                    Box::pin(keeping.keep(body.clone())).await;
                }
                if let Some(recording) = recording.take() {
                    recording.answered(&body);
                }
                Ok(answer::json(body))
            }
            Err(failure) => Err(Missed::failed(self, failure, Some(charge))),
        }
    }
}
