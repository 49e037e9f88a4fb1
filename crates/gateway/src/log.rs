//! The log: a request's line formatted with little work, and lines written many at once.

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::{Format, Writer},
    },
    registry::LookupSpan,
};

/// What is told of each request goes by this target; see [`crate::watch`].
pub const REQUESTS: &str = "gateway::watch";
/// A request's line waits at most this long for others.
const GATHER_MAX: Duration = Duration::from_millis(50);
/// So much of it is written at once, even if it has not waited; more than this never waits.
const GATHERED_BYTES_MAX: usize = 32 * 1024;

/// Formats events exactly as [`Format`] does, the lines of requests in a tenth of its time.
#[derive(Debug, Default)]
pub struct Lines {
    others: Format,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        let plain = meta.target() == REQUESTS && !writer.has_ansi_escapes();
        if !plain || context.lookup_current().is_some() {
            return self.others.format_event(context, writer, event);
        }
        write_now(&mut writer)?;
        write!(writer, " {:>5} {REQUESTS}: ", meta.level().as_str())?;
        let mut fields = Fields {
            writer,
            first: true,
            result: Ok(()),
        };
        event.record(&mut fields);
        fields.result?;
        fields.writer.write_char('\n')
    }
}

/// Writes the time as RFC 3339 in UTC with microseconds.
fn write_now(writer: &mut Writer<'_>) -> fmt::Result {
    thread_local! {
        /// A second and what it is called: most lines are of the second of the one before.
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|_| fmt::Error)?;
    SECOND.with_borrow_mut(|(second, name)| {
        if *second != now.as_secs() {
            let at = i64::try_from(now.as_secs()).map_err(|_| fmt::Error)?;
            let at = Timestamp::from_second(at).map_err(|_| fmt::Error)?;
            *second = now.as_secs();
            name.clear();
            write!(name, "{at:.0}")?;
        }
        writer.write_str(name.strip_suffix('Z').unwrap_or(name))
    })?;
    write!(writer, ".{:06}Z", now.subsec_micros())
}

/// Writes the fields of an event: the message as it is, of others the name, too.
struct Fields<'a> {
    writer: Writer<'a>,
    first: bool,
    result: fmt::Result,
}

impl Fields<'_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let name = field.name();
        let space = if std::mem::take(&mut self.first) {
            ""
        } else {
            " "
        };
        let written = self.writer.write_str(space).and_then(|()| {
            if name != "message" {
                self.writer.write_str(name)?;
                self.writer.write_char('=')?;
            }
            match value.as_str() {
                Some(text) => self.writer.write_str(text),
                None => self.writer.write_fmt(value),
            }
        });
        self.result = self.result.and(written);
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.write(field, format_args!("{value}"));
        } else {
            self.write(field, format_args!("{value:?}"));
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, format_args!("{value:?}"));
    }
}

/// A place for lines. Those of requests are gathered for some milliseconds, so that one system call
/// writes many; every other line is written at once, behind what was gathered before it.
pub struct Gathered<W: Write + 'static>(Arc<Shared<W>>);

struct Shared<W> {
    gathered: Mutex<Vec<u8>>,
    /// Told when the first line has come.
    begun: Condvar,
    /// Taken before `gathered`, so that lines keep their order.
    to: Mutex<W>,
}

impl<W: Write> fmt::Debug for Gathered<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gathered(…)")
    }
}

impl<W: Write> Clone for Gathered<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: Write + Send + 'static> Gathered<W> {
    /// Lines for `to`, written by a thread of its own.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(to: W) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            gathered: Mutex::default(),
            begun: Condvar::new(),
            to: Mutex::new(to),
        });
        let writing = shared.clone();
        thread::Builder::new()
            .name("log".into())
            .spawn(move || writing.write_regularly())?;
        Ok(Self(shared))
    }

    /// Writes what was gathered: before the end of the program.
    pub fn finish(&self) {
        self.0.write();
    }
}

impl<W: Write> Shared<W> {
    fn write_regularly(&self) {
        loop {
            let gathered = lock(&self.gathered);
            let waited = self.begun.wait_while(gathered, |lines| lines.is_empty());
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            thread::sleep(GATHER_MAX);
            self.write();
        }
    }

    /// Writes what was gathered. What cannot be written is nobody's: there is no log to tell it.
    fn write(&self) {
        let mut to = lock(&self.to);
        let lines = std::mem::take(&mut *lock(&self.gathered));
        if !lines.is_empty() {
            let _ = to.write_all(&lines);
        }
    }

    fn add(&self, line: &[u8], waits: bool) {
        let mut gathered = lock(&self.gathered);
        let first = gathered.is_empty();
        gathered.extend_from_slice(line);
        let full = gathered.len() >= GATHERED_BYTES_MAX;
        drop(gathered);
        if full || !waits {
            self.write();
        } else if first {
            self.begun.notify_one();
        }
    }
}

/// One line on its way.
#[derive(Debug)]
pub struct Line<'a, W: Write + 'static> {
    to: &'a Gathered<W>,
    waits: bool,
}

impl<W: Write> io::Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.to.0.add(line, self.waits);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a, W: Write + 'static> MakeWriter<'a> for Gathered<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Line<'a, W> {
        Line {
            to: self,
            waits: false,
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a, W> {
        Line {
            to: self,
            waits: meta.target() == REQUESTS && *meta.level() >= Level::INFO,
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tracing_subscriber::fmt::Subscriber as Fmt;

    use super::*;

    /// Takes each write as one message.
    #[derive(Clone)]
    struct Writes(mpsc::Sender<String>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            let _ = self.0.send(text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn request(model: &str) {
        tracing::info!(
            target: REQUESTS,
            request_id = %"req_1",
            account = Some(tracing::field::display("acct_1")),
            key = None::<tracing::field::DisplayValue<&str>>,
            model,
            stream = true,
            status = 200_u16,
            code = "",
            prompt_tokens = 12_u64,
            difference = -3,
            share = 0.5,
            "request"
        );
    }

    fn without_time(lines: &str) -> Vec<String> {
        let lines = lines.lines();
        lines
            .map(|line| line.split_once('Z').unwrap().1.to_owned())
            .collect()
    }

    #[test]
    fn a_line_is_the_one_that_the_library_formats() {
        let written = |quick: bool| {
            let (to, lines) = mpsc::channel();
            let to = Mutex::new(Writes(to));
            let fmt = Fmt::builder().with_ansi(false).with_writer(to);
            let said = || {
                request("a");
                request("quoted \" and \\ and \n and ü");
                tracing::warn!(target: REQUESTS, "no field");
                tracing::info!(target: "elsewhere", n = 1, "another");
            };
            if quick {
                let fmt = fmt.event_format(Lines::default()).finish();
                tracing::subscriber::with_default(fmt, said);
            } else {
                tracing::subscriber::with_default(fmt.finish(), said);
            }
            lines.try_iter().collect::<String>()
        };
        let ours = written(true);
        assert_eq!(without_time(&ours), without_time(&written(false)));
        let time = ours.split_once(' ').unwrap().0;
        assert_eq!((time.len(), time.parse::<Timestamp>().is_ok()), (27, true));
    }

    #[test]
    fn lines_of_requests_are_written_together_and_others_behind_them_at_once() {
        let (to, lines) = mpsc::channel();
        let gathered = Gathered::start(Writes(to)).unwrap();
        let fmt = Fmt::builder()
            .with_ansi(false)
            .with_writer(gathered.clone())
            .finish();
        tracing::subscriber::with_default(fmt, || {
            // The thread does not look again before the others are there.
            let held = lock(&gathered.0.to);
            request("a");
            request("b");
            drop(held);
            tracing::warn!(target: REQUESTS, "trouble");
            let all: String = lines.try_iter().collect();
            assert_eq!(all.lines().count(), 3, "{all}");
            assert!(all.ends_with("trouble\n"), "{all}");
            request("c");
            let late = lines.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!(late.lines().count(), 1, "{late}");
            request("d");
            gathered.finish();
            let rest: String = lines.try_iter().collect();
            assert_eq!(rest.lines().count(), 1, "{rest}");
        });
    }
}
