//! A client's request body: read whole within bounds of size and time, or thrown away.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{error::ApiError, settings::Settings};

/// A body may come this slowly and no slower, in bytes a second, once the time for headers has
/// passed again: a client that sends a byte now and then does not keep its place.
const RATE_MIN: usize = 4 * 1024;
/// What is thrown away of a refused body at most, so that its sender gets to read the refusal.
const DISCARD_BYTES_MAX: usize = 32 << 20;
/// How long that may take.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(3);

/// A body up to this size needs no room: `requests_max` bounds how many there are.
const SMALL_BYTES_MAX: usize = 64 * 1024;
/// Up to so many bytes a copy costs less than the 8 KiB at least of a connection's buffer.
const COMPACT_BYTES_MAX: usize = 4 * 1024;
/// Room is given in pieces of so many bytes.
const ROOM_PIECE: usize = 1024;

/// The memory that large bodies may take together.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

/// A body and the room that it takes, until its last owner lets it go.
struct Held {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Room {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let pieces = (bytes / ROOM_PIECE).min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(pieces)))
    }

    /// Makes sure that `taken` is room for a body of `bytes`.
    fn take(&self, taken: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), ApiError> {
        if bytes <= SMALL_BYTES_MAX {
            return Ok(());
        }
        let have = taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let lacking = bytes.div_ceil(ROOM_PIECE).saturating_sub(have);
        let lacking = u32::try_from(lacking).map_err(|_| ApiError::Busy)?;
        let more = self
            .0
            .clone()
            .try_acquire_many_owned(lacking)
            .map_err(|_| ApiError::Busy)?;
        match taken {
            Some(taken) => taken.merge(more),
            None => *taken = Some(more),
        }
        Ok(())
    }
}

/// Reads a body.
///
/// # Errors
/// 503 where large bodies take all the room that there is, 413 over the bound, 400 when it does not come whole in time, or too slowly.
pub async fn read(
    headers: &HeaderMap,
    mut body: Body,
    settings: &Settings,
    room: &Room,
) -> Result<Bytes, ApiError> {
    let max = settings.body_bytes_max;
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > max as u64) {
        return Err(refuse(body, ApiError::TooLarge { max }).await);
    }
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|value| value != "identity")
    {
        // A compressed body could expand without bound.
        let error =
            invalid("Compressed request bodies are not taken. Send it without Content-Encoding.");
        return Err(refuse(body, error).await);
    }
    let mut taken = None;
    let announced = usize::try_from(announced.unwrap_or(0)).unwrap_or(usize::MAX);
    if let Err(error) = room.take(&mut taken, announced) {
        return Err(refuse(body, error).await);
    }
    match collect(&mut body, settings, room, &mut taken).await {
        Err(error @ (ApiError::TooLarge { .. } | ApiError::Busy)) => Err(refuse(body, error).await),
        Err(error) => Err(error),
        Ok(bytes) => Ok(match taken {
            Some(room) => Bytes::from_owner(Held { bytes, _room: room }),
            None => bytes,
        }),
    }
}

/// Throws a body away, within bounds, before its request is refused. A connection that is closed
/// on unread bytes is reset, and the client would see that instead of the refusal.
pub async fn refuse(mut body: Body, error: ApiError) -> ApiError {
    let discard = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DISCARD_BYTES_MAX {
                return;
            }
        }
    };
    // On the heap: few requests are refused, and all would be larger for it.
    let _ = tokio::time::timeout(DISCARD_TIME_MAX, Box::pin(discard)).await;
    error
}

/// Most bodies come in one piece, and are not copied where they are long.
async fn collect(
    body: &mut Body,
    settings: &Settings,
    room: &Room,
    taken: &mut Option<OwnedSemaphorePermit>,
) -> Result<Bytes, ApiError> {
    let max = settings.body_bytes_max;
    let begun = Instant::now();
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let allowed = time_for(first.len() + all.len(), settings);
        let next = tokio::time::timeout_at((begun + allowed).into(), body.frame()).await;
        let Ok(next) = next else {
            return Err(invalid("The request body did not arrive in time."));
        };
        let Some(frame) = next else {
            break;
        };
        let frame = frame.map_err(|_| invalid("The request body broke off."))?;
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        if first.len() + all.len() + bytes.len() > max {
            return Err(ApiError::TooLarge { max });
        }
        room.take(taken, first.len() + all.len() + bytes.len())?;
        if first.is_empty() && all.is_empty() {
            first = bytes;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&bytes);
        }
    }
    Ok(if all.is_empty() {
        compact(first)
    } else {
        all.freeze()
    })
}

/// A short piece of what a connection has read, as a copy. It would keep the connection's buffer for
/// as long as it lasts, which is longer than itself, and the connection would need another.
#[must_use]
pub fn compact(piece: Bytes) -> Bytes {
    if piece.len() <= COMPACT_BYTES_MAX {
        Bytes::copy_from_slice(&piece)
    } else {
        piece
    }
}

/// How long a body may have taken when so many bytes of it have come.
fn time_for(bytes: usize, settings: &Settings) -> Duration {
    let earned = u64::try_from(bytes / RATE_MIN).unwrap_or(u64::MAX);
    settings
        .header_timeout
        .saturating_add(Duration::from_secs(earned))
        .min(settings.body_timeout)
}

fn invalid(message: &'static str) -> ApiError {
    ApiError::Invalid {
        param: None,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_share_a_room() {
        let room = Room::new(300 * 1024);
        let (mut one, mut other) = (None, None);
        room.take(&mut one, SMALL_BYTES_MAX).unwrap();
        assert!(one.is_none(), "small ones need none");
        room.take(&mut one, 100 * 1024).unwrap();
        room.take(&mut one, 200 * 1024).unwrap();
        room.take(&mut one, 150 * 1024).unwrap();
        assert!(room.take(&mut other, 101 * 1024).is_err());
        room.take(&mut other, 100 * 1024).unwrap();
        let held = Bytes::from_owner(Held {
            bytes: Bytes::new(),
            _room: one.unwrap(),
        });
        let clone = held.clone();
        drop(held);
        assert!(room.take(&mut None, 200 * 1024).is_err());
        drop(clone);
        room.take(&mut None, 200 * 1024).unwrap();
    }

    #[test]
    fn a_body_earns_its_time_by_coming() {
        let settings = Settings::default();
        let seconds = |bytes| time_for(bytes, &settings).as_secs();
        let first = settings.header_timeout.as_secs();
        assert_eq!(seconds(0), first);
        assert_eq!(seconds(RATE_MIN - 1), first);
        assert_eq!(seconds(RATE_MIN * 7), first + 7);
        assert_eq!(seconds(usize::MAX), settings.body_timeout.as_secs());
    }
}
