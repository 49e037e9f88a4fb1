//! Events that a provider sends at once reach the client in a few writes, and each on its own where they come apart.

use futures_util::StreamExt as _;
use serde_json::json;
use tests::{Books, Gateway, Place, chat, in_time};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const EVENTS: usize = 64;
/// The head of the answer and the first event may go alone, and a read may end anywhere.
const WRITES_MAX: usize = 8;

/// A whole stream as one piece of TCP: each event is a chunk of HTTP/1.1 of its own.
fn burst() -> Vec<u8> {
    let word = r#"{"id":"c","choices":[{"index":0,"delta":{"content":" one"}}]}"#;
    let last = r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let mut wire = String::from(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    for data in std::iter::repeat_n(word, EVENTS).chain([last, "[DONE]"]) {
        let event = format!("data: {data}\n\n");
        wire.push_str(&format!("{:x}\r\n{event}\r\n", event.len()));
    }
    wire.push_str("0\r\n\r\n");
    wire.into_bytes()
}

async fn read_request(connection: &mut TcpStream) {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length:").nth(1).unwrap();
            let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
            if body.len() >= length {
                return;
            }
        }
        assert!(connection.read_buf(&mut read).await.unwrap() > 0);
    }
}

/// One thread: with several, another may take the stream up before its connection had the turn.
#[tokio::test]
async fn what_arrives_together_is_handed_on_together() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let provider = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        connection.set_nodelay(true).unwrap();
        read_request(&mut connection).await;
        connection.write_all(&burst()).await.unwrap();
        connection
    });
    let gateway = Gateway::start_before(Place::new(Books::Sqlite).await, url).await;
    let customer = gateway.customer("1").await;
    let request = gateway.chat_request(&customer, chat("m", json!({"stream": true})));
    let answer = in_time("the head", request.send()).await.unwrap();
    // Each of the gateway's writes is a chunk of HTTP/1.1, which the client's library hands out one by one.
    let mut pieces = answer.bytes_stream();
    let (mut writes, mut text) = (0, String::new());
    while let Some(piece) = in_time("the next piece", pieces.next()).await {
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        writes += 1;
    }
    assert_eq!(text.matches("\" one\"").count(), EVENTS);
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(writes <= WRITES_MAX, "{EVENTS} events in {writes} writes");
    drop(provider.await.unwrap());
    let charge = gateway.charge(&customer).await;
    assert_eq!(charge["usage"]["completion_tokens"], EVENTS);
    gateway.finish().await;
}
