//! A connection that can be made to end with a reset instead of an orderly close.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::script::Cut;

/// How a connection shall end, said by the answer on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending {
    reset: Arc<AtomicBool>,
}

impl Ending {
    pub(crate) fn set(&self, cut: Cut) {
        match cut {
            Cut::Close => {}
            Cut::Reset => self.reset.store(true, Ordering::Release),
        }
    }
}

/// A TCP connection and its ending.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    ending: Ending,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, ending: Ending) -> Self {
        Self { stream, ending }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.ending.reset.load(Ordering::Acquire) {
            // Closing with nothing to linger for makes the system send RST.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
