//! The lines of a file at a provider, read one by one: no file is ever held whole.

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream::BoxStream};
use http_body_util::BodyExt as _;

use crate::{
    app::Shared,
    catalogue::Provider,
    error::ApiError,
    objects,
    upstream::{Failure, Reply},
};

/// Lines that are read at most: OpenAI's batches have 50,000 requests.
const LINES_MAX: usize = 100_000;
/// Bytes that are read at most.
const BYTES_MAX: usize = 1 << 30;

/// Lines as they come.
pub(crate) struct Lines<'a> {
    app: &'a Shared,
    provider: &'a Provider,
    upstream: BoxStream<'static, Result<Bytes, Failure>>,
    buffer: BytesMut,
    /// Bytes of the buffer that have no line's end in them.
    searched: usize,
    lines: usize,
    bytes: usize,
    ended: bool,
}

impl<'a> Lines<'a> {
    /// The lines of an answer.
    pub(crate) fn new(response: Reply, app: &'a Shared, provider: &'a Provider) -> Self {
        Self {
            app,
            provider,
            upstream: response.into_body().into_data_stream().boxed(),
            buffer: BytesMut::new(),
            searched: 0,
            lines: 0,
            bytes: 0,
            ended: false,
        }
    }

    /// The next line, without its end.
    ///
    /// # Errors
    /// The provider broke off, or the file is longer than anybody reads.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', unsearched) {
                let line = self.buffer.split_to(self.searched + at).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                return self.count(line).map(Some);
            }
            self.searched = self.buffer.len();
            if self.ended {
                let rest = self.buffer.split().freeze();
                self.searched = 0;
                return Ok((!rest.is_empty()).then_some(rest));
            }
            self.read_on().await?;
        }
    }

    async fn read_on(&mut self) -> Result<(), ApiError> {
        let settings = &self.app.settings;
        let next = tokio::time::timeout(settings.idle_timeout, self.upstream.next()).await;
        let failure = match next {
            Ok(Some(Ok(bytes))) => {
                self.bytes = self.bytes.saturating_add(bytes.len());
                self.buffer.extend_from_slice(&bytes);
                let long = self.buffer.len() > settings.answer_bytes_max;
                if !long && self.bytes <= BYTES_MAX {
                    return Ok(());
                }
                Failure::Garbage("a file longer than anybody reads".into())
            }
            Ok(None) => {
                self.ended = true;
                return Ok(());
            }
            Ok(Some(Err(failure))) => failure,
            Err(_) => Failure::Timeout,
        };
        Err(objects::failed(self.provider, failure))
    }

    fn count(&mut self, line: Bytes) -> Result<Bytes, ApiError> {
        self.lines += 1;
        if self.lines > LINES_MAX {
            let failure = Failure::Garbage("more lines than a batch has".into());
            return Err(objects::failed(self.provider, failure));
        }
        Ok(line)
    }
}
