//! Frames on their way to other hosts, several in one command.
//!
//! A batch must not be overtaken by what was asked for later and may reach the same connection. So frames for single
//! hosts are gathered beside one another, because no connection is on two hosts; but before a frame for all, or for a
//! topic, they go, and the other way round.

use super::payload::{Sender, begin_frames};

/// Bytes of one batch. A frame may be longer.
const MAX_BATCH: usize = 64 * 1024;
/// Bytes of all batches.
const MAX_BYTES: usize = 1024 * 1024;
/// Buffers kept for reuse.
const MAX_SPARE: usize = 16;

/// Where frames go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Host(u8),
    All,
    Topic(Box<str>),
}

/// Frames with the same destination.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) destination: Destination,
    pub(super) payload: Vec<u8>,
    pub(super) count: u32,
}

/// See the module documentation.
pub(super) struct Batches {
    sender: Sender,
    /// For different hosts; or one.
    waiting: Vec<Batch>,
    /// The places of hosts among them.
    places: Box<[u16; 256]>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
}

const NOWHERE: u16 = u16::MAX;

/// Sends a batch on its way.
pub(super) type Send<'a> = &'a mut dyn FnMut(&Batch);

impl Batches {
    pub(super) fn new(sender: Sender) -> Self {
        Self { sender, waiting: Vec::new(), places: Box::new([NOWHERE; 256]), bytes: 0, spare: Vec::new() }
    }

    pub(super) fn sender(&self) -> Sender {
        self.sender
    }

    /// Who sends the batches that begin from here on.
    pub(super) fn set_sender(&mut self, sender: Sender) {
        self.sender = sender;
    }

    pub(super) fn for_host(&mut self, host: u8, frame: &[u8], send: Send<'_>) {
        if self.waiting.first().is_some_and(|batch| !matches!(batch.destination, Destination::Host(_))) {
            self.flush(send);
        }
        if self.places[usize::from(host)] == NOWHERE {
            self.places[usize::from(host)] = self.waiting.len() as u16;
            self.begin(Destination::Host(host));
        }
        self.append(self.places[usize::from(host)].into(), frame, send);
    }

    pub(super) fn for_all(&mut self, frame: &[u8], send: Send<'_>) {
        if self.waiting.first().is_none_or(|batch| batch.destination != Destination::All) {
            self.flush(send);
            self.begin(Destination::All);
        }
        self.append(0, frame, send);
    }

    pub(super) fn for_topic(&mut self, topic: &str, frame: &[u8], send: Send<'_>) {
        let is_same = |batch: &Batch| matches!(&batch.destination, Destination::Topic(other) if **other == *topic);
        if !self.waiting.first().is_some_and(is_same) {
            self.flush(send);
            self.begin(Destination::Topic(topic.into()));
        }
        self.append(0, frame, send);
    }

    /// Sends everything.
    pub(super) fn flush(&mut self, send: Send<'_>) {
        for mut batch in self.waiting.drain(..) {
            send(&batch);
            if let Destination::Host(host) = batch.destination {
                self.places[usize::from(host)] = NOWHERE;
            }
            batch.payload.clear();
            if self.spare.len() < MAX_SPARE && batch.payload.capacity() <= 2 * MAX_BATCH {
                self.spare.push(batch.payload);
            }
        }
        self.bytes = 0;
    }

    fn begin(&mut self, destination: Destination) {
        let mut payload = self.spare.pop().unwrap_or_default();
        begin_frames(&mut payload, self.sender);
        self.waiting.push(Batch { destination, payload, count: 0 });
    }

    fn append(&mut self, place: usize, frame: &[u8], send: Send<'_>) {
        let batch = &mut self.waiting[place];
        if batch.count > 0 && batch.payload.len() + frame.len() > MAX_BATCH {
            send(batch);
            batch.payload.clear();
            batch.count = 0;
            begin_frames(&mut batch.payload, self.sender);
        }
        batch.payload.extend_from_slice(frame);
        batch.count += 1;
        self.bytes += frame.len();
        if self.bytes > MAX_BYTES {
            self.flush(send);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::payload::Payload;
    use super::*;

    const SENDER: Sender = Sender { instance: 1, host: 2 };

    fn frame(number: u32, length: usize) -> Vec<u8> {
        let mut frame = (length as u32 + 4).to_le_bytes().to_vec();
        frame.extend(number.to_le_bytes());
        frame.resize(8 + length, 0);
        frame
    }

    type Sent = Vec<(Destination, Vec<u32>)>;

    fn note(batch: &Batch, sent: &mut Sent) {
        let Ok((SENDER, Payload::Frames(frames))) = Payload::decode(&batch.payload) else { panic!("{batch:?}") };
        let numbers = frames.map(|frame| u32::from_le_bytes(*frame[4..].first_chunk().expect("a number")));
        let numbers: Vec<_> = numbers.collect();
        assert_eq!(numbers.len(), batch.count as usize);
        sent.push((batch.destination.clone(), numbers));
    }

    fn put(batches: &mut Batches, destination: &Destination, frame: &[u8], sent: &mut Sent) {
        let mut send = |batch: &Batch| note(batch, sent);
        match destination {
            Destination::Host(host) => batches.for_host(*host, frame, &mut send),
            Destination::All => batches.for_all(frame, &mut send),
            Destination::Topic(topic) => batches.for_topic(topic, frame, &mut send),
        }
    }

    #[test]
    fn frames_for_one_place_are_sent_together() {
        use Destination::{All, Host, Topic};
        let (mut batches, mut sent) = (Batches::new(SENDER), Vec::new());
        let (a, b) = (Topic("a".into()), Topic("b".into()));
        for (number, destination) in
            [Host(1), Host(2), Host(1), All, All, a.clone(), a.clone(), b.clone(), Host(1)].into_iter().enumerate()
        {
            put(&mut batches, &destination, &frame(number as u32, 0), &mut sent);
        }
        batches.flush(&mut |batch| note(batch, &mut sent));
        let expected = [
            (Host(1), vec![0, 2]),
            (Host(2), vec![1]),
            (All, vec![3, 4]),
            (a, vec![5, 6]),
            (b, vec![7]),
            (Host(1), vec![8]),
        ];
        assert_eq!(sent, expected);
    }

    fn destination() -> impl Strategy<Value = Destination> {
        prop_oneof![
            4 => (1..4u8).prop_map(Destination::Host),
            1 => Just(Destination::All),
            1 => "[ab]".prop_map(|topic| Destination::Topic(topic.into())),
        ]
    }

    proptest! {
        #[test]
        fn each_host_gets_its_frames_in_order(asked in prop::collection::vec((destination(), 0..70_000usize), 0..80)) {
            let (mut batches, mut sent) = (Batches::new(SENDER), Vec::new());
            for (number, (destination, length)) in asked.iter().enumerate() {
                put(&mut batches, destination, &frame(number as u32, *length), &mut sent);
                prop_assert!(batches.bytes <= MAX_BYTES);
            }
            batches.flush(&mut |batch| note(batch, &mut sent));
            for host in 1..4 {
                let arrives = |destination: &Destination| !matches!(destination, Destination::Host(to) if *to != host);
                let expected: Vec<_> =
                    asked.iter().enumerate().filter(|(_, (to, _))| arrives(to)).map(|(number, _)| number as u32).collect();
                let got: Vec<_> = sent.iter().filter(|(to, _)| arrives(to)).flat_map(|(_, numbers)| numbers.clone()).collect();
                prop_assert_eq!(got, expected);
            }
        }
    }
}
