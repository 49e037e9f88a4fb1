//! Just enough of Postgres' wire protocol to see who connects, and when a transaction is committed.
//!
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

/// `SSLRequest` and `GSSENCRequest`: the startup message follows them.
const ENCRYPTION_REQUESTS: [u32; 2] = [80_877_103, 80_877_104];
/// Nobody's message is longer; more is not this protocol.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Reads what a client says, in whatever pieces it comes.
#[derive(Debug, Default)]
pub(crate) struct ClientTalk {
    buffer: Vec<u8>,
    started: bool,
    application: String,
}

impl ClientTalk {
    /// Takes the next bytes; true when a whole `COMMIT` is among the messages they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        let mut commit = false;
        while let Some(message) = self.take() {
            if self.started {
                commit |= message == b"Q\0\0\0\x0bCOMMIT\0";
            } else {
                self.startup(&message);
            }
        }
        commit
    }

    /// What the client calls itself; empty before it has said so.
    pub(crate) fn application(&self) -> &str {
        &self.application
    }

    /// Whether the startup message has been read.
    pub(crate) fn has_started(&self) -> bool {
        self.started
    }

    /// The first whole message: a byte for its kind (not in the startup), its length, its body.
    fn take(&mut self) -> Option<Vec<u8>> {
        let kind = usize::from(self.started);
        let length = number(self.buffer.get(kind..)?)?;
        let whole = kind + usize::try_from(length).ok()?;
        if whole > MESSAGE_BYTES_MAX {
            self.buffer.clear();
        }
        (self.buffer.len() >= whole).then(|| self.buffer.drain(..whole).collect())
    }

    fn startup(&mut self, message: &[u8]) {
        let code = message.get(4..).and_then(number).unwrap_or_default();
        if ENCRYPTION_REQUESTS.contains(&code) {
            return;
        }
        self.started = true;
        let mut words = message
            .get(8..)
            .unwrap_or_default()
            .split(|byte| *byte == 0);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            if name == b"application_name" {
                self.application = String::from_utf8_lossy(value).into_owned();
            }
        }
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    let four = bytes.get(..4)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

/// The message that opens a session of this user in this database.
pub(crate) fn startup_message(user: &str, database: &str) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for word in ["user", user, "database", database] {
        body.extend_from_slice(word.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut message = length.to_be_bytes().to_vec();
    message.append(&mut body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Vec<u8> {
        let mut message = vec![b'Q'];
        let length = u32::try_from(text.len() + 5).unwrap();
        message.extend(length.to_be_bytes());
        message.extend(text.as_bytes());
        message.push(0);
        message
    }

    fn hello() -> Vec<u8> {
        let mut all = vec![0, 0, 0, 8];
        all.extend(80_877_103_u32.to_be_bytes());
        let mut body = vec![0, 3, 0, 0];
        body.extend(b"user\0u\0application_name\0tollway-journal\0\0");
        all.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        all.extend(body);
        all
    }

    #[test]
    fn a_commit_is_seen_however_the_bytes_are_cut() {
        let talk = [
            hello(),
            query("BEGIN ISOLATION LEVEL READ COMMITTED"),
            query("COMMIT"),
            query("SELECT 'COMMIT'"),
        ]
        .concat();
        for size in 1..talk.len() {
            let mut reader = ClientTalk::default();
            let commits = talk.chunks(size).filter(|bytes| reader.push(bytes)).count();
            assert_eq!(commits, 1, "in pieces of {size}");
            assert_eq!(reader.application(), "tollway-journal");
            assert!(reader.has_started());
        }
    }

    #[test]
    fn nonsense_is_not_kept() {
        let mut reader = ClientTalk::default();
        assert!(!reader.push(&[255; 64]));
        assert!(reader.buffer.is_empty());
    }
}
