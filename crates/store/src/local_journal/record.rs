//! The records of the local journal: what one says, and how it is written so that damage is seen.
//!
//! A record is a mark, the length of its body, a checksum of both, and the body: one byte that
//! says what it is, then its fields. The mark is where reading goes on behind damage.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use billing::{
    AccountId, Capture, Counted, Credits, End, KeyId, PriceId, ReplicaId, RequestFacts, RequestId,
    Settlement, Timings,
};
use tokens::{Bucket, Usage, UsageSource};
use uuid::Uuid;

/// The largest record, in bytes with its frame. What is longer is no record.
pub(crate) const RECORD_BYTES_MAX: usize = 256 * 1024;
/// A provider's report that is longer is left out: it explains a charge and does not make it.
const RAW_USAGE_BYTES_MAX: usize = 64 * 1024;
/// What every record begins with. Text never has the first byte.
const MARK: [u8; 4] = [0xF5, b'T', b'W', 0x1E];
/// Mark, length and checksum.
const FRAME_BYTES: usize = 12;
/// Different endpoints that records may name; the program has a handful.
const ENDPOINTS_MAX: usize = 64;

/// The buckets that every settlement has in its record, in their order there.
const ALWAYS: [Bucket; 9] = [
    Bucket::Prompt,
    Bucket::CachedPrompt,
    Bucket::CacheWrite5m,
    Bucket::CacheWrite1h,
    Bucket::AudioPrompt,
    Bucket::ImagePrompt,
    Bucket::Completion,
    Bucket::Reasoning,
    Bucket::AudioCompletion,
];
/// What the others are written under. A tag is never used for anything else.
const RARE_TAGS: [(u8, Bucket); 6] = [
    (1, Bucket::ImageCompletion),
    (2, Bucket::Images),
    (3, Bucket::Milliseconds),
    (4, Bucket::Characters),
    (5, Bucket::Searches),
    (6, Bucket::Pages),
];
const PROVIDER_COST_TAG: u8 = 64;
const COUNTED_TAG: u8 = 65;

/// One record, as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// From here on leases are taken under this name.
    Replica(ReplicaId),
    /// A request was about to go upstream.
    Started(RequestId),
    /// What a running request owed.
    Progressed(Settlement),
    /// A request ended.
    Settled(Settlement),
    /// These requests are in the database.
    Committed(Vec<RequestId>),
}

/// What begins at some place of a file.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Found {
    /// A record, and where the next one begins.
    Record(Record, usize),
    /// A record that is whole but not understood, and where the next one begins.
    Unknown(usize),
    /// The beginning of a record that the file does not have all of.
    Cut,
    /// No record.
    Nothing,
}

/// Appends records to a buffer.
#[derive(Debug)]
pub(crate) struct Writer<'a>(pub(crate) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(crate) fn replica(&mut self, id: ReplicaId) {
        self.framed(1, |body| body.uuid(id.uuid()));
    }

    pub(crate) fn started(&mut self, facts: &RequestFacts, lease: ReplicaId) {
        self.framed(2, |body| {
            body.facts(facts);
            body.uuid(lease.uuid());
        });
    }

    pub(crate) fn progressed(&mut self, so_far: &Settlement) {
        self.framed(3, |body| body.settlement(so_far));
    }

    pub(crate) fn settled(&mut self, settlement: &Settlement) {
        self.framed(4, |body| body.settlement(settlement));
    }

    pub(crate) fn committed(&mut self, requests: impl Iterator<Item = RequestId>) {
        self.framed(5, |body| {
            for request in requests {
                body.uuid(request.uuid());
            }
        });
    }

    fn framed(&mut self, kind: u8, body: impl FnOnce(&mut Writer<'_>)) {
        let start = self.0.len();
        self.0.extend_from_slice(&MARK);
        self.0.extend_from_slice(&[0; FRAME_BYTES - MARK.len()]);
        self.0.push(kind);
        body(&mut Writer(self.0));
        let length = self.0.len().saturating_sub(start + FRAME_BYTES);
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        let Some((frame, body)) = self
            .0
            .get_mut(start..)
            .and_then(|record| record.split_at_mut_checked(FRAME_BYTES))
        else {
            return;
        };
        let sum = checksum(length, body).to_le_bytes();
        for (place, byte) in frame
            .iter_mut()
            .skip(MARK.len())
            .zip(length.into_iter().chain(sum))
        {
            *place = byte;
        }
    }

    fn facts(&mut self, facts: &RequestFacts) {
        self.uuid(facts.request_id.uuid());
        self.uuid(facts.account_id.uuid());
        self.uuid(facts.key_id.uuid());
        self.uuid(facts.price_id.uuid());
        self.byte(u8::from(facts.key_has_limit));
        self.byte(u8::from(facts.stream));
        self.text(facts.endpoint);
        self.text(&facts.model);
        self.text(&facts.provider);
    }

    fn settlement(&mut self, settlement: &Settlement) {
        self.facts(&settlement.facts);
        self.uuid(settlement.lease.uuid());
        self.byte(u8::from(settlement.checkpointed));
        self.byte(end_byte(settlement.end));
        self.byte(match settlement.source {
            UsageSource::Reported => 0,
            UsageSource::Counted => 1,
        });
        for bucket in ALWAYS {
            self.number(settlement.usage.get(bucket));
        }
        let Capture {
            cost,
            charged,
            owed,
            house_loss,
        } = settlement.capture;
        for amount in [cost, charged, owed, house_loss] {
            self.number(amount.nanos().cast_unsigned());
        }
        self.number(settlement.timings.duration_us);
        self.byte(u8::from(settlement.timings.first_token_us.is_some()));
        self.number(settlement.timings.first_token_us.unwrap_or(0));
        let raw = settlement.raw_usage.as_deref();
        let raw = raw.filter(|raw| raw.len() <= RAW_USAGE_BYTES_MAX);
        self.byte(u8::from(raw.is_some()));
        self.text(raw.unwrap_or_default());
        self.additions(settlement);
    }

    /// What most settlements do not have: a tag and its numbers each, up to the end of the body.
    /// Records of older programs end before it.
    fn additions(&mut self, settlement: &Settlement) {
        for (tag, bucket) in RARE_TAGS {
            let count = settlement.usage.get(bucket);
            if count > 0 {
                self.byte(tag);
                self.number(count);
            }
        }
        if let Some(owed) = settlement.provider_cost {
            self.byte(PROVIDER_COST_TAG);
            self.number(owed.nanos().cast_unsigned());
        }
        if let Some(counted) = settlement.counted {
            self.byte(COUNTED_TAG);
            self.number(counted.prompt);
            self.number(counted.completion);
        }
    }

    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn uuid(&mut self, id: Uuid) {
        self.0.extend_from_slice(id.as_bytes());
    }

    /// Seven bits a byte, the lowest first; the high bit says that more come.
    fn number(&mut self, mut number: u64) {
        while number > 0x7f {
            let [low, ..] = number.to_le_bytes();
            self.byte(low | 0x80);
            number >>= 7;
        }
        let [low, ..] = number.to_le_bytes();
        self.byte(low);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }
}

/// What begins at `at`.
pub(crate) fn find(bytes: &[u8], at: usize) -> Found {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some((frame, after)) = rest.split_at_checked(FRAME_BYTES) else {
        let cut = MARK.starts_with(rest) || rest.starts_with(&MARK);
        return if cut { Found::Cut } else { Found::Nothing };
    };
    let Some(frame) = frame.strip_prefix(&MARK) else {
        return Found::Nothing;
    };
    let mut frame = Fields(frame);
    let (Some(length), Some(sum)) = (frame.array(), frame.array()) else {
        return Found::Nothing;
    };
    let bytes_of_body = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if bytes_of_body == 0 || bytes_of_body > RECORD_BYTES_MAX - FRAME_BYTES {
        return Found::Nothing;
    }
    let Some(body) = after.get(..bytes_of_body) else {
        return Found::Cut;
    };
    if checksum(length, body) != u32::from_le_bytes(sum) {
        return Found::Nothing;
    }
    let next = at + FRAME_BYTES + bytes_of_body;
    match Fields(body).record() {
        Some(record) => Found::Record(record, next),
        None => Found::Unknown(next),
    }
}

/// Where the next record after `from` begins, whole or not understood.
pub(crate) fn next(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = bytes.get(at..)?;
        at += rest.windows(MARK.len()).position(|four| four == MARK)?;
        match find(bytes, at) {
            Found::Record(..) | Found::Unknown(_) => return Some(at),
            Found::Cut | Found::Nothing => at += 1,
        }
    }
}

fn checksum(length: [u8; 4], body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length);
    sum.update(body);
    sum.finalize()
}

const fn end_byte(end: End) -> u8 {
    match end {
        End::Completed => 0,
        End::ClientGone => 1,
        End::UpstreamFailed => 2,
        End::CreditsExhausted => 3,
        End::GatewayLost => 4,
    }
}

/// The name of an endpoint as the program has it: for as long as it runs.
fn endpoint(text: &str) -> Option<&'static str> {
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = known.get(text) {
        return Some(*name);
    }
    if known.len() >= ENDPOINTS_MAX {
        return None;
    }
    let name: &'static str = Box::leak(text.into());
    known.insert(name);
    Some(name)
}

/// The fields of a body that are not read yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The record, if all of the body is understood.
    fn record(mut self) -> Option<Record> {
        let record = match self.byte()? {
            1 => Record::Replica(ReplicaId::from_uuid(self.uuid()?)),
            2 => {
                let facts = self.facts()?;
                self.uuid()?;
                Record::Started(facts.request_id)
            }
            3 => Record::Progressed(self.settlement()?),
            4 => Record::Settled(self.settlement()?),
            5 => {
                let mut requests = Vec::with_capacity(self.0.len() / 16);
                while !self.0.is_empty() {
                    requests.push(RequestId::from_uuid(self.uuid()?));
                }
                Record::Committed(requests)
            }
            _ => return None,
        };
        self.0.is_empty().then_some(record)
    }

    fn facts(&mut self) -> Option<RequestFacts> {
        Some(RequestFacts {
            request_id: RequestId::from_uuid(self.uuid()?),
            account_id: AccountId::from_uuid(self.uuid()?),
            key_id: KeyId::from_uuid(self.uuid()?),
            price_id: PriceId::from_uuid(self.uuid()?),
            key_has_limit: self.flag()?,
            stream: self.flag()?,
            endpoint: endpoint(self.text()?)?,
            model: self.text()?.into(),
            provider: self.text()?.into(),
        })
    }

    fn settlement(&mut self) -> Option<Settlement> {
        let facts = Arc::new(self.facts()?);
        let lease = ReplicaId::from_uuid(self.uuid()?);
        let checkpointed = self.flag()?;
        let end = self.byte()?;
        let end = End::ALL.into_iter().find(|known| end_byte(*known) == end)?;
        let source = match self.byte()? {
            0 => UsageSource::Reported,
            1 => UsageSource::Counted,
            _ => return None,
        };
        let mut usage = Usage::default();
        for bucket in ALWAYS {
            *usage.get_mut(bucket) = self.number()?;
        }
        let capture = Capture {
            cost: self.amount()?,
            charged: self.amount()?,
            owed: self.amount()?,
            house_loss: self.amount()?,
        };
        let duration_us = self.number()?;
        let first = self.flag()?;
        let first_token_us = Some(self.number()?).filter(|_| first);
        let raw = self.flag()?;
        let raw_usage = Some(self.text()?).filter(|_| raw).map(Into::into);
        let (mut provider_cost, mut counted) = (None, None);
        while !self.0.is_empty() {
            match self.byte()? {
                PROVIDER_COST_TAG => provider_cost = Some(self.amount()?),
                COUNTED_TAG => {
                    counted = Some(Counted {
                        prompt: self.number()?,
                        completion: self.number()?,
                    });
                }
                tag => {
                    let (_, bucket) = RARE_TAGS.into_iter().find(|(known, _)| *known == tag)?;
                    *usage.get_mut(bucket) = self.number()?;
                }
            }
        }
        Some(Settlement {
            facts,
            lease,
            checkpointed,
            end,
            usage,
            source,
            raw_usage,
            counted,
            capture,
            provider_cost,
            timings: Timings {
                duration_us,
                first_token_us,
            },
        })
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        let [byte] = self.array()?;
        Some(byte)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn uuid(&mut self) -> Option<Uuid> {
        self.array().map(Uuid::from_bytes)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number: u64 = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let low = u64::from(byte & 0x7f);
            number |= low.checked_shl(shift).filter(|n| n >> shift == low)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn amount(&mut self) -> Option<Credits> {
        Some(Credits::from_nanos(self.number()?.cast_signed()))
    }

    fn text(&mut self) -> Option<&'a str> {
        let bytes = usize::try_from(self.number()?).ok()?;
        std::str::from_utf8(self.take(bytes)?).ok()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A settlement whose every field follows from `n`.
    pub(crate) fn settlement(n: u64, end: End) -> Settlement {
        let id = Uuid::from_u128(u128::from(n) + 1);
        let nanos = i64::try_from(n % 1_000_000).unwrap();
        Settlement {
            facts: Arc::new(RequestFacts {
                request_id: RequestId::from_uuid(id),
                account_id: AccountId::from_uuid(id),
                key_id: KeyId::from_uuid(id),
                key_has_limit: n.is_multiple_of(2),
                endpoint: "chat.completions",
                model: format!("model-{n}").into(),
                provider: "acme".into(),
                price_id: PriceId::from_uuid(id),
                stream: !n.is_multiple_of(3),
            }),
            lease: ReplicaId::from_uuid(Uuid::from_u128(7)),
            checkpointed: n.is_multiple_of(5),
            end,
            usage: Usage {
                prompt: n,
                cache_write_1h: n.wrapping_mul(0x9e37_79b9),
                completion: 127,
                audio_completion: 128,
                images: n % 3,
                pages: n % 2,
                milliseconds: n % 5 * 1_000,
                ..Usage::default()
            },
            source: if n.is_multiple_of(2) {
                UsageSource::Reported
            } else {
                UsageSource::Counted
            },
            raw_usage: n.is_multiple_of(3).then(|| format!("{{\"n\":{n}}}").into()),
            counted: n.is_multiple_of(7).then_some(Counted {
                prompt: n,
                completion: 1,
            }),
            provider_cost: n.is_multiple_of(11).then_some(Credits::from_nanos(nanos)),
            capture: Capture {
                cost: Credits::from_nanos(2 * nanos),
                charged: Credits::from_nanos(nanos),
                owed: Credits::from_nanos(nanos),
                house_loss: Credits::ZERO,
            },
            timings: Timings {
                duration_us: n,
                first_token_us: (!n.is_multiple_of(4)).then_some(n / 2),
            },
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(n: u64, end in proptest::sample::select(End::ALL.to_vec())) {
            let one = settlement(n, end);
            let id = one.facts.request_id;
            let mut bytes = Vec::new();
            let mut writer = Writer(&mut bytes);
            writer.replica(one.lease);
            writer.started(&one.facts, one.lease);
            writer.progressed(&one);
            writer.settled(&one);
            writer.committed([id, id].into_iter());
            let expected = [
                Record::Replica(one.lease),
                Record::Started(id),
                Record::Progressed(one.clone()),
                Record::Settled(one),
                Record::Committed(vec![id, id]),
            ];
            let mut at = 0;
            for record in expected {
                let Found::Record(found, next) = find(&bytes, at) else {
                    panic!("{record:?} is not found at {at}");
                };
                assert_eq!(found, record);
                at = next;
            }
            assert_eq!(at, bytes.len());
            assert_eq!(find(&bytes, at), Found::Cut, "the end of a file");
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, at in 0..64_usize) {
            find(&bytes, at);
            next(&bytes, at);
        }
    }

    #[test]
    fn amounts_keep_their_sign_and_numbers_their_bits() {
        let mut one = settlement(1, End::Completed);
        one.capture.cost = Credits::from_nanos(i64::MIN);
        one.capture.charged = Credits::from_nanos(-1);
        one.usage.prompt = u64::MAX;
        let mut bytes = Vec::new();
        Writer(&mut bytes).settled(&one);
        let length = bytes.len();
        assert_eq!(find(&bytes, 0), Found::Record(Record::Settled(one), length));
    }

    #[test]
    fn a_report_that_is_too_long_is_left_out() {
        let mut one = settlement(3, End::Completed);
        one.raw_usage = Some("x".repeat(RAW_USAGE_BYTES_MAX + 1).into());
        let mut bytes = Vec::new();
        Writer(&mut bytes).settled(&one);
        assert!(bytes.len() < RECORD_BYTES_MAX);
        one.raw_usage = None;
        let length = bytes.len();
        assert_eq!(find(&bytes, 0), Found::Record(Record::Settled(one), length));
    }
}
