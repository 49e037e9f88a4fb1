//! Server-sent events: every way to split, end and spoil them.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dialect::{DONE_EVENT, FrameError, SseEvent, SseFramer, write_event};
use eventsource_stream::Eventsource as _;
use futures_util::StreamExt as _;
use proptest::prelude::*;

type Framed = Result<(String, String), FrameError>;

/// All events of a stream that arrives in the given pieces.
fn frame(pieces: &[&[u8]], event_bytes_max: usize) -> Vec<Framed> {
    let mut framer = SseFramer::new(event_bytes_max);
    let mut out = Vec::new();
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let mut add = |event: Result<SseEvent, FrameError>| {
        out.push(event.map(|event| {
            (
                event.event.as_ref().map(text).unwrap_or_default(),
                text(&event.data),
            )
        }));
    };
    for piece in pieces {
        framer.push(Bytes::copy_from_slice(piece));
        while let Some(event) = framer.next() {
            add(event);
        }
    }
    while let Some(event) = framer.finish() {
        add(event);
    }
    out
}

/// The data of all events, whatever the split: whole, byte by byte, and in one push before reading.
fn check(stream: &[u8], expected: &[&str]) {
    let whole = frame(&[stream], 1 << 20);
    let bytewise: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(
        whole,
        frame(&bytewise, 1 << 20),
        "split: {:?}",
        stream.escape_ascii().to_string()
    );
    let data: Vec<_> = whole.into_iter().map(|event| event.unwrap().1).collect();
    assert_eq!(data, expected, "{}", stream.escape_ascii());
}

#[test]
fn line_ends_of_every_kind() {
    check(b"data: a\n\ndata: b\n\n", &["a", "b"]);
    check(b"data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]);
    check(b"data: a\r\rdata: b\r\r", &["a", "b"]);
    check(b"data: a\r\n\ndata: b\n\r\n", &["a", "b"]);
    check(b"data: a\n\r\r\ndata: b\r\n\r", &["a", "b"]);
    check(b"\n\n\r\r\r\n\n", &[]);
}

#[test]
fn a_line_feed_after_crlf_is_a_line_of_its_own() {
    assert_eq!(
        frame(&[b"data: a\r\n", b"\n"], 99),
        [Ok((String::new(), "a".into()))]
    );
    let mut framer = SseFramer::default();
    framer.push(Bytes::from_static(b"data: a\r\n"));
    assert!(framer.next().is_none());
    framer.push(Bytes::from_static(b"\n"));
    assert_eq!(framer.next().unwrap().unwrap().data, "a");
}

#[test]
fn an_event_is_there_as_soon_as_its_blank_line_is() {
    let mut framer = SseFramer::default();
    framer.push(Bytes::from_static(b"data: a\r\n\r"));
    assert_eq!(framer.next().unwrap().unwrap().data, "a");
    framer.push(Bytes::from_static(b"\ndata: b\n\n"));
    assert_eq!(framer.next().unwrap().unwrap().data, "b");
    assert!(framer.next().is_none());
}

#[test]
fn fields() {
    check(b"data:a\n\n", &["a"]);
    check(b"data:  a \n\n", &[" a "]);
    check(b"data: a: b\n\n", &["a: b"]);
    check(b"data\n\n", &[""]);
    check(b"data:\n\n", &[""]);
    check(b"data: a\ndata:\ndata: b\n\n", &["a\n\nb"]);
    check(b"data\ndata\n\n", &["\n"]);
    check(b": ping\n\n:\n\n: data: x\n\n", &[]);
    check(
        b"id: 7\nretry: 5\nfoo: bar\nDATA: x\ndatas: y\n data: z\n\n",
        &[],
    );
    check(b"event: error\n\ndata: a\n\n", &["a"]);
    assert_eq!(
        frame(&[b"event: error\nid: 1\ndata: a\n\ndata: b\n\n"], 99),
        [
            Ok(("error".into(), "a".into())),
            Ok((String::new(), "b".into()))
        ]
    );
}

#[test]
fn a_byte_order_mark_opens_a_stream_and_nothing_else() {
    check(b"\xEF\xBB\xBFdata: a\n\n", &["a"]);
    check(b"\xEF\xBB\xBF\n\ndata: a\n\n", &["a"]);
    check(b"data: a\n\n\xEF\xBB\xBFdata: b\n\n", &["a"]);
    check("data: \u{feff}a\n\n".as_bytes(), &["\u{feff}a"]);
    check(b"\xEF\xBB\xBF\xEF\xBB\xBFdata: a\n\n", &[]);
}

#[test]
fn a_last_event_without_its_blank_line_is_delivered() {
    check(b"data: a\n\ndata: b\n", &["a", "b"]);
    check(b"data: a\n\ndata: b", &["a", "b"]);
    check(b"data: b\r", &["b"]);
    check(b"data: a\n\n: bye", &["a"]);
    check(b"data: a\n\nevent: x\n", &["a"]);
}

#[test]
fn an_event_in_one_push_is_not_copied() {
    let push = Bytes::from_static(b"data: one\n\ndata: two\r\n\r\n");
    let mut framer = SseFramer::default();
    framer.push(push.clone());
    for at in [6, 17] {
        let event = framer.next().unwrap().unwrap();
        assert_eq!(event.data.as_ptr(), push[at..].as_ptr());
    }
}

#[test]
fn invalid_utf8_spoils_its_event_only() {
    let stream =
        b"data: \xff\n\ndata: \xe2\x82\n\ndata: ok\n\n: \xff\n\nevent: \xff\ndata: ok2\n\n";
    let mut framer = SseFramer::default();
    framer.push(Bytes::from_static(stream));
    assert_eq!(framer.next(), Some(Err(FrameError::Utf8)));
    assert_eq!(framer.next(), Some(Err(FrameError::Utf8)));
    assert_eq!(framer.next().unwrap().unwrap().data, "ok");
    assert_eq!(framer.next().unwrap().unwrap().data, "ok2");
}

#[test]
fn bounds_are_exact_and_final() {
    let too_long = [Err(FrameError::TooLong { max: 10 })];
    let line = |length: usize| format!("data: {}\n\ndata: b\n\n", "x".repeat(length - 6));
    for split in [1, 3, 99] {
        let framed = |stream: &str| {
            let pieces: Vec<&[u8]> = stream.as_bytes().chunks(split).collect();
            frame(&pieces, 10)
        };
        assert_eq!(framed(&line(10)).len(), 2);
        assert_eq!(framed(&line(11)), too_long);
        // A comment is not kept, but a line has to be bounded before it is known to be one.
        assert_eq!(framed(": 345678901\n\n"), too_long);
        assert_eq!(framed("id: 5678901\n\ndata: b\n\n"), too_long);
        // Joined lines, each one byte more than its text: 4 + 1 + 5 fit, one more does not.
        assert_eq!(framed("data:1234\ndata:12345\n\n").len(), 1);
        assert_eq!(
            framed("data:1234\ndata:12345\n\n")[0].as_ref().unwrap().1,
            "1234\n12345"
        );
        assert_eq!(framed("data:1234\ndata:12345\ndata:\n\n"), too_long);
        assert_eq!(framed(&"data:\n".repeat(100)), too_long);
        assert_eq!(framed(&": ok\n".repeat(100)), []);
    }
}

#[test]
fn after_the_bound_nothing_is_kept() {
    let mut framer = SseFramer::new(1000);
    for _ in 0..100 {
        framer.push(Bytes::from(vec![b'x'; 500]));
        if let Some(event) = framer.next() {
            assert_eq!(event, Err(FrameError::TooLong { max: 1000 }));
            break;
        }
    }
    framer.push(Bytes::from_static(b"\n\ndata: a\n\n"));
    assert_eq!(framer.next(), None);
    assert_eq!(framer.finish(), None);
}

/// Time for 16 MiB of data that arrive in pieces of 16 KiB, as lines of `line_bytes`.
fn time_of_16_mib(line_bytes: usize) -> Duration {
    let piece = Bytes::from(vec![b'x'; 16 << 10]);
    let mut framer = SseFramer::new(line_bytes + 6);
    let start = Instant::now();
    for _ in 0..(16 << 20) / line_bytes {
        framer.push(Bytes::from_static(b"data: "));
        for _ in 0..line_bytes / piece.len() {
            framer.push(piece.clone());
            assert_eq!(framer.next(), None);
        }
        framer.push(Bytes::from_static(b"\n\n"));
        assert_eq!(framer.next().unwrap().unwrap().data.len(), line_bytes);
    }
    start.elapsed()
}

/// The same bytes in 32 lines and in one: a busy machine slows both alike. One line costs as much as
/// the 32 when time is linear, and 32 times as much when it is quadratic.
#[test]
fn lines_of_16_mb_take_linear_time() {
    let runs: Vec<_> = (0..5)
        .map(|_| (time_of_16_mib(512 << 10), time_of_16_mib(16 << 20)))
        .collect();
    let short = runs.iter().map(|run| run.0).min().unwrap();
    let long = runs.iter().map(|run| run.1).min().unwrap();
    println!("16 MiB in 32 lines: {short:?}, in one: {long:?}");
    assert!(long < short * 8, "in 32 lines: {short:?}, in one: {long:?}");
}

#[test]
fn what_is_written_is_read_back() {
    let mut out = BytesMut::new();
    write_event(&mut out, b"{\"a\":1}");
    write_event(&mut out, b"{\r\n  \"a\": 1\n}");
    out.extend_from_slice(DONE_EVENT);
    assert_eq!(
        &out[..],
        b"data: {\"a\":1}\n\ndata: {    \"a\": 1 }\n\ndata: [DONE]\n\n"
    );
}

/// Streams of lines that look like real ones, with ends of every kind.
fn streams(ends: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => "(data: ?|data:)[a-z{}\":é€😀 ]{0,12}",
        1 => Just(String::from("data")),
        1 => "event: ?[a-z]{0,4}",
        1 => ":[a-z ]{0,6}",
        1 => "(id|retry|foo): ?[0-9a-z]{0,4}",
        4 => Just(String::new()),
    ];
    prop::collection::vec((line, prop::sample::select(ends)), 0..24).prop_map(|lines| {
        lines
            .into_iter()
            .flat_map(|(line, end)| (line + end).into_bytes())
            .collect()
    })
}

fn split_at(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2)
        .map(|pair| bytes[pair[0]..pair[1]].to_vec())
        .collect()
}

fn oracle(pieces: Vec<Vec<u8>>) -> Vec<Framed> {
    let stream = futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
    let events =
        futures_util::future::FutureExt::now_or_never(stream.eventsource().collect::<Vec<_>>());
    let name = |name: String| {
        if name == "message" {
            String::new()
        } else {
            name
        }
    };
    events
        .unwrap()
        .into_iter()
        .map(|event| {
            event
                .map(|event| (name(event.event), event.data))
                .map_err(|_| FrameError::Utf8)
        })
        .collect()
}

proptest! {
    #[test]
    fn any_split_gives_the_same_events(
        stream in streams(&["\n", "\r", "\r\n"]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let pieces = split_at(&stream, &cuts);
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(frame(&pieces, 1 << 20), frame(&[&stream], 1 << 20));
    }

    #[test]
    fn agrees_with_eventsource_stream(
        mut stream in streams(&["\n", "\r\n"]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        // It drops an unfinished last event.
        stream.extend_from_slice(b"\n\n");
        let pieces = split_at(&stream, &cuts);
        let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(frame(&slices, 1 << 20), oracle(pieces));
    }

    #[test]
    fn nothing_panics_on_arbitrary_bytes(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
        max in 0_usize..64,
    ) {
        let mut framer = SseFramer::new(max);
        for piece in pieces {
            framer.push(Bytes::from(piece));
            while framer.next().is_some() {}
        }
        while framer.finish().is_some() {}
    }
}
