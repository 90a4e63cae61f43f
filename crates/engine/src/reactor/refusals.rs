//! Clients that were turned away, until they are reported.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use wire::http::Head;

/// The largest number that may wait; each holds a request's head.
const MAX_WAITING: usize = 64;

/// A client that was turned away before it reached any handler.
#[derive(Debug)]
pub struct Refused {
    /// The address it came from.
    pub peer: SocketAddr,
    /// Whether that is a proxy whose PROXY header named no client.
    pub hides_client: bool,
    /// The status it was answered with; `None` if it got no answer.
    pub status: Option<u16>,
    /// The reason, in words.
    pub reason: Cow<'static, str>,
    /// Bytes of the answer's body.
    pub sent: usize,
    /// The request, if it could be read.
    pub head: Option<Arc<Head>>,
    /// How many other clients were turned away since the previous one without being reported individually.
    pub others: u64,
}

/// A bounded list of refusals. Those that do not fit are only counted.
#[derive(Default)]
pub(crate) struct Refusals {
    waiting: VecDeque<Box<Refused>>,
    left_out: u64,
}

impl Refusals {
    pub(crate) fn push(&mut self, refused: Refused) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(Box::new(refused));
        } else {
            self.left_out += 1;
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Box<Refused>> {
        let mut refused = self.waiting.pop_front()?;
        refused.others = std::mem::take(&mut self.left_out);
        Some(refused)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_without_room_are_counted_and_told_once() {
        let mut refusals = Refusals::default();
        for _ in 0..MAX_WAITING + 5 {
            refusals.push(Refused {
                peer: "192.0.2.7:443".parse().expect("an address"),
                hides_client: false,
                status: Some(400),
                reason: "why".into(),
                sent: 4,
                head: None,
                others: 0,
            });
        }
        let told: Vec<u64> = std::iter::from_fn(|| refusals.pop()).map(|refused| refused.others).collect();
        assert_eq!(told.len(), MAX_WAITING);
        assert_eq!(told.iter().sum::<u64>(), 5);
        assert!(refusals.is_empty());
    }
}
