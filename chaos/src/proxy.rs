//! Lines that can be made slow: each port of 127.0.0.1 that somebody is to be
//! reached at is reached at 127.0.0.2 as well, through here.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where lines begin.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const CHUNK_BYTES: usize = 16 * 1024;

/// Some lines that are slow together, or not.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Pace>);

#[derive(Default)]
struct Pace {
    delay_ms: AtomicU64,
    /// None is 0.
    bytes_per_second: AtomicU64,
}

impl Lines {
    /// Opens a line to `port`. Must be called where a runtime is.
    pub(crate) fn open(&self, port: u16) -> io::Result<()> {
        let listener = TcpListener::bind((HOST, port))?;
        listener.set_nonblocking(true)?;
        let lines = self.clone();
        let runtime = tokio::runtime::Handle::current();
        let _inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let lines = lines.clone();
                tokio::spawn(async move {
                    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                    // Who isn't there is seen as one who hangs up.
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    let _ = lines.carry(near, far).await;
                });
            }
        });
        Ok(())
    }

    /// From now on each piece is late, and few go through.
    pub(crate) fn slow(&self, delay: Duration, bytes_per_second: u64) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.0.delay_ms.store(delay_ms, Ordering::Relaxed);
        self.0.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    pub(crate) fn mend(&self) {
        self.slow(Duration::ZERO, 0);
    }

    async fn carry(&self, mut near: TcpStream, mut far: TcpStream) -> io::Result<()> {
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
        tokio::try_join!(self.pump(near_in, far_out), self.pump(far_in, near_out))?;
        Ok(())
    }

    async fn pump(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = from.read(&mut chunk).await?;
            if count == 0 {
                return to.shutdown().await;
            }
            let mut wait = Duration::from_millis(self.0.delay_ms.load(Ordering::Relaxed));
            let rate = self.0.bytes_per_second.load(Ordering::Relaxed);
            if let Some(each) =
                Duration::from_secs(count as u64).checked_div(u32::try_from(rate).unwrap_or(0))
            {
                wait += each;
            }
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            to.write_all(&chunk[..count]).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test]
    async fn a_line_carries_both_ways_slowly_when_told_and_ends_with_its_end() {
        let there = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = there.local_addr().unwrap().port();
        let lines = Lines::default();
        lines.open(port).unwrap();
        let echo = tokio::spawn(async move {
            let (mut peer, _) = there.accept().await.unwrap();
            let mut word = [0; 4];
            while peer.read_exact(&mut word).await.is_ok() {
                peer.write_all(&word).await.unwrap();
            }
        });
        let mut line = TcpStream::connect((HOST, port)).await.unwrap();
        let mut word = [0; 4];
        for (delay, least) in [(0, 0), (100, 200), (0, 0)] {
            lines.slow(Duration::from_millis(delay), 0);
            let begun = Instant::now();
            line.write_all(b"word").await.unwrap();
            line.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"word");
            assert!(begun.elapsed() >= Duration::from_millis(least));
        }
        lines.slow(Duration::ZERO, 40);
        let begun = Instant::now();
        line.write_all(b"word").await.unwrap();
        line.read_exact(&mut word).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(200));
        drop(line);
        echo.await.unwrap();
    }
}
