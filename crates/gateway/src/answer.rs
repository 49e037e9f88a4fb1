//! A plain answer: read within bounds, decoded, settled, and given to the client with its bill.

use std::time::Instant;

use axum::{body::Body, response::Response};
use billing::{Charge, End, Settled, Text, Verdict};
use bytes::{Bytes, BytesMut};
use dialect::{Answer, Framing, Origin, Pair, StreamNames};
use futures_util::StreamExt as _;
use http::{HeaderName, HeaderValue, header};
use http_body_util::BodyExt as _;
use tokens::OFF_THREAD_BYTES_MIN;

use crate::{
    app::Shared,
    bill::{off_thread_if, piece, tier_of, with_bill},
    body,
    catalogue::Provider,
    counting,
    credit::Search,
    error::ApiError,
    settings::Settings,
    upstream::{Failure, Reply},
    watch::Watched,
};

/// Tells a client that its output limit was lowered to what is affordable.
pub const X_MAX_TOKENS: HeaderName = HeaderName::from_static("x-tollway-max-tokens");

/// Whether a provider answered with a stream of events, framed as its dialect frames them.
#[must_use]
pub fn is_event_stream(response: &Reply, framing: Framing) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| framing.is_named_by(value))
}

/// Reads a whole answer within the bounds of size and idle time.
///
/// # Errors
/// [`Failure`].
pub async fn read(response: Reply, settings: &Settings) -> Result<Bytes, Failure> {
    let mut stream = response.into_body().into_data_stream();
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    loop {
        let next = tokio::time::timeout(settings.first_byte_timeout, stream.next())
            .await
            .map_err(|_| Failure::Timeout)?;
        match next {
            None => break,
            Some(Err(failure)) => return Err(failure),
            Some(Ok(bytes)) if first.is_none() && all.is_empty() => first = Some(bytes),
            Some(Ok(bytes)) => {
                if let Some(first) = first.take() {
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&bytes);
            }
        }
        if all.len() > settings.answer_bytes_max {
            return Err(Failure::Garbage("longer than answer_bytes_max".into()));
        }
    }
    Ok(first.map_or_else(|| all.freeze(), body::compact))
}

/// Decodes it.
///
/// # Errors
/// [`Failure`].
pub fn decode(
    body: Bytes,
    pair: Pair,
    provider: &Provider,
    origin: Origin,
) -> Result<Answer, Failure> {
    Ok(pair.decode(body, &provider.quirks, origin)?)
}

/// Settles it by the provider's report, else by our own count.
///
/// # Errors
/// A cost that does not fit.
pub async fn settle(
    app: &Shared,
    mut charge: Charge,
    answer: &Answer,
    watched: &Watched,
) -> Result<Settled, ApiError> {
    let now = Instant::now();
    charge.mark_first_output(now);
    watched.output(now);
    match answer.usage() {
        Some(Ok(usage)) => {
            if let Some(tier) = tier_of(answer.service_tier()) {
                charge.served_by(tier);
            }
            charge.report(usage, answer.usage_text().map(Into::into));
        }
        Some(Err(fault)) => {
            watched.usage_fault(fault);
            Box::pin(count(app, &mut charge, answer)).await?;
        }
        None => Box::pin(count(app, &mut charge, answer)).await?,
    }
    cover(app, &mut charge).await?;
    let settled = counting::finish(app, charge, End::Completed, watched, || {
        answer.texts().map(piece)
    })
    .ok_or(ApiError::Internal)?;
    watched.settled(End::Completed, Some(settled));
    Ok(settled)
}

/// Finds credit for what was reported above the hold, and ends the charge.
///
/// # Errors
/// A cost that does not fit.
pub async fn finish(
    app: &Shared,
    mut charge: Charge,
    watched: &Watched,
) -> Result<Settled, ApiError> {
    cover(app, &mut charge).await?;
    let settled = charge.finish(End::Completed).ok_or(ApiError::Internal)?;
    watched.settled(End::Completed, Some(settled));
    Ok(settled)
}

/// Finds credit for what was reported above the hold.
///
/// # Errors
/// A cost that does not fit.
pub async fn cover(app: &Shared, charge: &mut Charge) -> Result<(), ApiError> {
    let lacking = charge.lacking()?;
    if lacking.is_positive() && !charge.grow(lacking, Instant::now()) {
        // The provider has delivered it: what cannot be had now is a house loss.
        let mut search = Search::begin(&app.ledger, charge, lacking);
        std::future::poll_fn(|cx| search.poll(cx, &app.ledger, charge)).await;
        let _ = charge.grow(charge.lacking()?, Instant::now());
    }
    Ok(())
}

/// Counts the texts of an answer. The hold covers its worst case, so credit is lacking only
/// where a provider disregarded its output limit.
async fn count(app: &Shared, charge: &mut Charge, answer: &Answer) -> Result<(), ApiError> {
    let texts: Vec<Text<'_>> = answer.texts().map(piece).collect();
    let bytes: usize = texts.iter().map(|text| text.text.len()).sum();
    loop {
        let now = Instant::now();
        let large = bytes >= OFF_THREAD_BYTES_MIN;
        match off_thread_if(large, || charge.observe(&texts, now))? {
            Verdict::Continue => return Ok(()),
            Verdict::NeedsCredit { least, .. } => {
                let mut search = Search::begin(&app.ledger, charge, least);
                std::future::poll_fn(|cx| search.poll(cx, &app.ledger, charge)).await;
                if matches!(search, Search::Refused(_)) {
                    charge.cut(&texts)?;
                    return Ok(());
                }
            }
        }
    }
}

/// The answer as the client gets it, with the bill in its usage: the provider's own bytes where it
/// speaks the client's dialect.
#[must_use]
pub fn body(answer: &Answer, pair: Pair, settled: &Settled, names: &StreamNames) -> Bytes {
    with_bill(settled, |bill| pair.answer(answer, bill, names))
}

/// A stream of events.
#[must_use]
pub fn events(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Nginx would otherwise gather the stream before passing it on.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

/// A plain answer.
#[must_use]
pub fn json(body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
