//! An outbox next to a plain list of frames: whatever is queued, replaced, left out, discarded and written in any order,
//! the peer gets whole frames, and exactly those that the list says.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;

use rustls::ClientConnection;

use super::*;
use crate::tls::session::tests::{established, hear};

/// What is done with an outbox.
#[derive(Clone, Debug)]
enum Step {
    /// Appends a frame made for this outbox alone.
    Own(usize),
    /// Queues a frame that others hold too.
    Shared(usize),
    /// Queues a frame that may be replaced by others with its label, or expires after so many milliseconds.
    Put { label: Option<u8>, ttl: Option<u64>, length: usize },
    /// Lets so many milliseconds pass.
    Pass(u64),
    /// Leaves out what has expired, without writing.
    LeaveOut,
    /// The socket takes so many bytes.
    Write(usize),
    /// Everything but the frame under way is discarded, and nothing else follows.
    Discard,
    /// A frame is written elsewhere, in part. Happens only if nothing is queued.
    Rest(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let label = prop_oneof![2 => Just(None), 3 => (0_u8..4).prop_map(Some), 2 => (4_u8..40).prop_map(Some)];
    let ttl = prop_oneof![1 => Just(None), 1 => (0_u64..40).prop_map(Some)];
    let length = || prop_oneof![20 => 0_usize..40, 1 => 600_usize..3000];
    prop_oneof![
        2 => length().prop_map(Step::Own),
        2 => (COPIED..3000).prop_map(Step::Shared),
        10 => (label, ttl, length()).prop_map(|(label, ttl, length)| Step::Put { label, ttl, length }),
        3 => (0_u64..20).prop_map(Step::Pass),
        1 => Just(Step::LeaveOut),
        4 => prop_oneof![10 => 0_usize..60, 1 => 0_usize..4000].prop_map(Step::Write),
        1 => Just(Step::Discard),
        1 => (0_usize..4).prop_map(Step::Rest),
    ]
}

/// A frame that has been queued, or the answer to the handshake.
struct Entry {
    bytes: Vec<u8>,
    label: Option<Label>,
    /// Whether it may be replaced or left out.
    is_provisional: bool,
    is_shared: bool,
    is_preface: bool,
    deadline: u64,
}

struct Model {
    entries: Vec<Entry>,
    /// Bytes of the first entry that have been written.
    sent: usize,
    now: u64,
    replaced: usize,
}

impl Model {
    /// The entries that have not been begun.
    fn unbegun(&self) -> Range<usize> {
        usize::from(self.sent > 0)..self.entries.len()
    }

    fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.bytes.len()).sum::<usize>() - self.sent
    }

    fn push(&mut self, bytes: &[u8], is_shared: bool) {
        let (bytes, is_preface) = (bytes.to_vec(), false);
        self.entries.push(Entry {
            bytes,
            label: None,
            is_provisional: false,
            is_shared,
            is_preface,
            deadline: u64::MAX,
        });
    }

    fn put(&mut self, entry: Entry, in_order: bool) {
        let has_label = |place: &usize| entry.label.is_some() && self.entries[*place].label == entry.label;
        match self.unbegun().find(has_label) {
            Some(place) => {
                if in_order {
                    self.entries.remove(place);
                    self.entries.push(entry);
                } else {
                    self.entries[place] = entry;
                }
                self.replaced += 1;
            }
            None => self.entries.push(entry),
        }
    }

    fn leave_out_expired(&mut self) -> usize {
        let expired: Vec<usize> = self.unbegun().filter(|place| self.entries[*place].deadline < self.now).collect();
        for place in expired.iter().rev() {
            self.entries.remove(*place);
        }
        expired.len()
    }

    fn discard(&mut self) {
        let keeps_first = self.sent > 0 || self.entries.first().is_some_and(|entry| entry.is_preface);
        self.entries.truncate(usize::from(keeps_first));
        if let Some(first) = self.entries.first_mut() {
            (first.is_shared, first.is_provisional) = (false, false);
        }
    }

    /// Takes the next bytes, as the peer gets them.
    fn take(&mut self, mut count: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while count > 0 {
            let rest = &self.entries[0].bytes[self.sent..];
            let now = count.min(rest.len());
            taken.extend_from_slice(&rest[..now]);
            count -= now;
            self.sent += now;
            if self.sent == self.entries[0].bytes.len() {
                self.entries.remove(0);
                self.sent = 0;
            }
        }
        taken
    }
}

struct Both {
    outbox: Outbox,
    pool: Pool,
    model: Model,
    /// Present if the output is encrypted: the two ends, what has been encrypted, and what the client has read of it.
    tls: Option<(Session, ClientConnection, Vec<u8>, Vec<u8>)>,
}

impl Both {
    fn new(has_preface: bool, has_tls: bool) -> Self {
        let tls = has_tls.then(established).map(|(session, client)| (session, client, Vec::new(), Vec::new()));
        let model = Model { entries: Vec::new(), sent: 0, now: 1000, replaced: 0 };
        let mut both = Self { outbox: Outbox::default(), pool: Pool::default(), model, tls };
        if has_preface {
            let answer = b"HTTP/1.1 101 ...";
            both.outbox.append(&mut both.pool, |out| out.extend_from_slice(answer));
            both.outbox.end_preface(&mut both.pool);
            both.model.push(answer, false);
            both.model.entries[0].is_preface = true;
        }
        both
    }

    fn step(&mut self, number: usize, step: &Step) {
        let Self { outbox, pool, model, .. } = self;
        let frame = |length: usize| frame_of(&vec![number as u8; length]);
        match *step {
            Step::Own(length) => {
                outbox.append(pool, |out| out.extend_from_slice(&frame(length)));
                model.push(&frame(length), false);
            }
            Step::Shared(length) => {
                let shared: Arc<[u8]> = frame(length).into();
                outbox.share(pool, &shared);
                pool.count_shared(&shared);
                model.push(&shared, true);
            }
            Step::Put { label, ttl, length } => {
                let new_label = || label.map(|label| Label::new("topic", Some(&label.to_string())));
                let deadline = ttl.map_or(u64::MAX, |ttl| model.now + ttl);
                let frame: Arc<[u8]> = frame(length).into();
                // Those of one topic either have an order or not.
                let in_order = label.is_some_and(|label| label % 2 == 1);
                let label = new_label().map(Arc::new);
                let provisional = Arc::new(Provisional { frame: Arc::clone(&frame), label, in_order, deadline });
                let replaceable = provisional.label.as_deref().map_or(0, |label| outbox.replaceable(label));
                let before = (outbox.len(), model.replaced);
                let has_replaced = outbox.put(pool, &provisional);
                drop(provisional);
                pool.count_shared(&frame);
                model.put(
                    Entry {
                        bytes: frame.to_vec(),
                        label: new_label(),
                        is_provisional: true,
                        is_shared: true,
                        is_preface: false,
                        deadline,
                    },
                    in_order,
                );
                assert_eq!(has_replaced, model.replaced > before.1);
                assert_eq!(outbox.len(), before.0 + frame.len() - replaceable);
            }
            Step::Pass(time) => model.now += time,
            Step::LeaveOut => self.leave_out_expired(),
            Step::Write(room) => self.write(room),
            Step::Discard => {
                outbox.discard_unbegun(pool);
                model.discard();
            }
            Step::Rest(sent) => {
                if outbox.is_empty() && self.tls.is_none() {
                    let frame: Arc<[u8]> = frame(40).into();
                    outbox.share_rest(&frame, 1 + sent);
                    pool.count_shared(&frame);
                    model.push(&frame, true);
                    model.sent = 1 + sent;
                }
            }
        }
        self.check();
    }

    fn leave_out_expired(&mut self) {
        let expected = self.model.leave_out_expired();
        let may_have_expired = self.outbox.may_have_expired(self.model.now);
        assert!(may_have_expired || expected == 0);
        assert_eq!(self.outbox.leave_out_expired(self.model.now, &mut self.pool), expected);
        assert!(!self.outbox.may_have_expired(self.model.now), "it is looked at only once");
        if expected > 0 {
            let chunks = &self.outbox.chunks;
            let holes = chunks.iter().filter(|chunk| matches!(chunk, Chunk::Hole)).count();
            assert!(holes <= chunks.len() / 4, "{holes} of {} chunks are holes", chunks.len());
        }
    }

    fn write(&mut self, room: usize) {
        self.leave_out_expired();
        let mut socket = socket(room);
        if let Some((session, client, sealed, heard)) = &mut self.tls {
            let progress = self.outbox.write_sealed_to(&mut socket, session, &mut self.pool, usize::MAX);
            let count = self.model.bytes() - self.outbox.bytes;
            sealed.extend(self.model.take(count));
            heard.extend(hear(client, &socket.taken));
            assert!(sealed.starts_with(heard));
            if progress.expect("no error") == Progress::Empty {
                assert!(sealed == heard && self.model.bytes() == 0);
            }
            return;
        }
        let progress = self.outbox.write_to(&mut socket, &mut self.pool, usize::MAX).expect("no error");
        let count = room.min(self.model.bytes());
        assert_eq!(socket.taken, self.model.take(count));
        assert_eq!(progress == Progress::Empty, self.model.bytes() == 0);
    }

    fn check(&self) {
        let Self { outbox, pool, model, tls } = self;
        assert_eq!(outbox.bytes, model.bytes());
        let shared: usize = model.entries.iter().filter(|it| it.is_shared).map(|it| it.bytes.len()).sum();
        assert_eq!(pool.shared(), shared);
        assert_counted(outbox);
        let is_hole = |chunk: &Chunk| matches!(chunk, Chunk::Hole);
        assert!(!outbox.chunks.front().is_some_and(is_hole) && !outbox.chunks.back().is_some_and(is_hole));
        let has_provisional = model.entries.iter().any(|entry| entry.is_provisional);
        let has_preface = model.entries.iter().any(|entry| entry.is_preface);
        assert!(outbox.extra.is_some() || !has_provisional);
        if !has_provisional && !has_preface && tls.is_none() {
            assert!(outbox.extra.is_none() || !model.entries.is_empty(), "nothing is kept");
        }
    }
}

fn take(steps: &[Step], has_preface: bool, has_tls: bool) {
    let mut both = Both::new(has_preface, has_tls);
    for (number, step) in steps.iter().enumerate() {
        both.step(number, step);
        if matches!(step, Step::Discard) {
            // The connection ends.
            break;
        }
    }
    both.write(usize::MAX);
    both.check();
    assert!(both.outbox.is_empty() && both.model.entries.is_empty());
    assert_eq!(both.pool.shared(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whole_frames_leave_in_order_without_those_that_were_replaced_or_have_expired(
        has_preface: bool, steps in vec(step(), 0..120),
    ) {
        take(&steps, has_preface, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn they_do_so_through_tls(has_preface: bool, steps in vec(step(), 0..120)) {
        take(&steps, has_preface, true);
    }
}
