//! Other addresses of the same cluster: a server may move, or be one of several, and says beforehand where else it
//! answers.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;

/// Each further address is tried so much later than the one before it, unless that has answered (as RFC 8305 does).
const STAGGER: Duration = Duration::from_secs(1);
/// Addresses beside the configured one; more are left out.
const ADDRESSES_MAX: usize = 8;

/// Where a server may be besides the address that was configured. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Elsewhere(watch::Sender<Vec<SocketAddr>>);

impl Elsewhere {
    pub fn set(&self, mut addresses: Vec<SocketAddr>) {
        addresses.truncate(ADDRESSES_MAX);
        self.0.send_replace(addresses);
    }

    pub fn follow(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.0.subscribe()
    }

    /// `host:port` of every place to try, the configured one first.
    pub fn places(&self, host: &str, port: u16) -> Vec<(String, u16)> {
        let others = self.0.borrow();
        let others = others.iter().map(|a| (a.ip().to_string(), a.port()));
        let configured = (host.to_owned(), port);
        let mut places: Vec<_> = others.filter(|place| *place != configured).collect();
        places.insert(0, configured);
        places
    }
}

/// The first attempt that succeeds. All fail: the error of the one that failed first.
pub(super) async fn first<T>(attempts: impl IntoIterator<Item = impl Future<Output = io::Result<T>>>) -> io::Result<T> {
    let delayed = attempts.into_iter().zip(0u32..).map(|(attempt, n)| async move {
        tokio::time::sleep(STAGGER * n).await;
        attempt.await
    });
    let mut running: FuturesUnordered<_> = delayed.collect();
    let mut failed = None;
    while let Some(outcome) = running.next().await {
        match outcome {
            Ok(connected) => return Ok(connected),
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    Err(failed.unwrap_or_else(|| io::Error::other("no address to try")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn the_configured_place_comes_first_and_once() {
        let elsewhere = Elsewhere::default();
        assert_eq!(elsewhere.places("a", 1), [("a".to_owned(), 1)]);
        elsewhere.set(["192.0.2.1:6443", "192.0.2.2:6443"].map(|a| a.parse().unwrap()).to_vec());
        let place = |host: &str| (host.to_owned(), 6443);
        assert_eq!(elsewhere.places("192.0.2.2", 6443), [place("192.0.2.2"), place("192.0.2.1")]);
    }

    #[tokio::test]
    async fn the_first_that_answers_wins() {
        let refuse = |name: &str| Err(io::Error::other(name.to_owned()));
        let both = [std::future::ready(Ok(1)), std::future::ready(Ok(2))];
        assert_eq!(first(both).await.unwrap(), 1);
        let none = [std::future::ready(refuse("a") as io::Result<u32>), std::future::ready(refuse("b"))];
        assert_eq!(first(none).await.unwrap_err().to_string(), "a");
        let second = [std::future::pending().boxed(), std::future::ready(Ok(2)).boxed()];
        assert_eq!(first(second).await.unwrap(), 2);
    }
}
