//! Where in an outbox the frames are that may still be replaced or left out.
//!
//! Chunks are numbered in the order in which they were queued, and keep their numbers while chunks before them are sent.
//! A short queue is simply searched; a long one has tables.

use std::collections::{BTreeSet, VecDeque};

use rustc_hash::FxHashMap;

use crate::connection::outbox::chunk::Chunk;
use crate::topics::policy::{Label, Provisional};

/// A queue of up to so many chunks is searched.
const FEW: usize = 8;
/// The memory of an entry in each of the tables, roughly.
const ENTRY: usize = 2 * size_of::<(u64, u64)>();

/// See the module documentation.
pub(super) struct Index {
    /// The number of the first chunk.
    first: u64,
    /// How many chunks may, or might until they were begun, be replaced or left out.
    provisional: usize,
    /// How many chunks are holes.
    pub(super) holes: usize,
    /// No frame that may still be left out has an earlier deadline.
    earliest: u64,
    tables: Option<Box<Tables>>,
}

#[derive(Default)]
struct Tables {
    /// The chunk with each label, by the label's hash. Should two labels have the same hash, only the later one is here.
    labels: FxHashMap<u64, u64>,
    /// The deadlines of chunks that have not been begun, each with the number of its chunk.
    deadlines: BTreeSet<(u64, u64)>,
}

impl Default for Index {
    fn default() -> Self {
        Self { first: 0, provisional: 0, holes: 0, earliest: u64::MAX, tables: None }
    }
}

impl Index {
    /// Whether there is nothing in the outbox that has to be known here.
    pub(super) fn is_empty(&self) -> bool {
        self.provisional + self.holes == 0
    }

    /// Whether a frame might have expired.
    #[inline]
    pub(super) fn may_have_expired(&self, now: u64) -> bool {
        self.earliest < now
    }

    /// The memory of the tables, roughly.
    pub(super) fn memory(&self) -> usize {
        self.tables
            .as_ref()
            .map_or(0, |tables| size_of::<Tables>() + (tables.labels.capacity() + tables.deadlines.len()) * ENTRY)
    }

    /// The place of the frame with this label. If it has been begun, it cannot be replaced any more; `sent` bytes of
    /// the first chunk have been sent.
    pub(super) fn find(&mut self, chunks: &VecDeque<Chunk>, sent: usize, label: &Label) -> Option<usize> {
        if self.provisional == 0 {
            return None;
        }
        let has_label = |chunk: &Chunk| chunk.provisional().and_then(|it| it.label.as_deref()) == Some(label);
        self.build_if_long(chunks);
        let place = match &self.tables {
            Some(tables) => {
                let number = tables.labels.get(&label.hash())?;
                (number - self.first) as usize
            }
            None => chunks.iter().rposition(has_label)?,
        };
        let may_be_replaced = (place > 0 || sent == 0) && chunks.get(place).is_some_and(has_label);
        may_be_replaced.then_some(place)
    }

    /// Adds the frame at a place, which was queued last, or has replaced another.
    pub(super) fn add(&mut self, chunks: &VecDeque<Chunk>, place: usize) {
        let Some(provisional) = chunks.get(place).and_then(Chunk::provisional) else { return };
        self.provisional += 1;
        self.earliest = self.earliest.min(provisional.deadline);
        match &mut self.tables {
            Some(tables) => tables.add(provisional, self.first + place as u64),
            None => self.build_if_long(chunks),
        }
    }

    /// Removes the frame that was at a place.
    pub(super) fn remove(&mut self, place: usize, provisional: &Provisional) {
        self.provisional -= 1;
        if let Some(tables) = &mut self.tables {
            tables.remove(provisional, self.first + place as u64);
        }
    }

    /// Removes the first chunk.
    pub(super) fn remove_first(&mut self, chunk: &Chunk) {
        match chunk {
            Chunk::Provisional(provisional) => self.remove(0, provisional),
            Chunk::Hole => self.holes -= 1,
            Chunk::Own(_) | Chunk::Kept(_) | Chunk::Shared(_) | Chunk::File(_) => {}
        }
        self.first += 1;
    }

    /// The place of a frame that has expired and has not been begun, if there is one. Each is returned once.
    pub(super) fn take_expired(&mut self, chunks: &VecDeque<Chunk>, sent: usize, now: u64) -> Option<usize> {
        let first = usize::from(sent > 0);
        let Some(tables) = &mut self.tables else {
            let deadlines = || {
                chunks
                    .iter()
                    .enumerate()
                    .skip(first)
                    .filter_map(|(place, chunk)| Some((chunk.provisional()?.deadline, place)))
            };
            self.earliest = deadlines().map(|(deadline, _)| deadline).min().unwrap_or(u64::MAX);
            return deadlines().find(|(deadline, _)| *deadline < now).map(|(_, place)| place);
        };
        while let Some((deadline, number)) = tables.deadlines.first().copied() {
            self.earliest = deadline;
            if deadline >= now {
                return None;
            }
            tables.deadlines.pop_first();
            let place = (number - self.first) as usize;
            if place >= first {
                return Some(place);
            }
        }
        self.earliest = u64::MAX;
        None
    }

    /// Whether the holes should be removed from the queue.
    pub(super) fn has_many_holes(&self, chunks: &VecDeque<Chunk>) -> bool {
        self.holes > 0 && (self.tables.is_none() || self.holes > chunks.len() / 4)
    }

    /// Begins again with a queue whose holes have been removed.
    pub(super) fn rebuild(&mut self, chunks: &VecDeque<Chunk>) {
        (self.first, self.holes, self.tables) = (0, 0, None);
        self.build_if_long(chunks);
    }

    fn build_if_long(&mut self, chunks: &VecDeque<Chunk>) {
        if self.tables.is_some() || chunks.len() <= FEW {
            return;
        }
        let mut tables = Box::<Tables>::default();
        for (place, chunk) in chunks.iter().enumerate() {
            if let Some(provisional) = chunk.provisional() {
                tables.add(provisional, self.first + place as u64);
            }
        }
        self.tables = Some(tables);
    }
}

impl Tables {
    fn add(&mut self, provisional: &Provisional, number: u64) {
        if let Some(label) = &provisional.label {
            self.labels.insert(label.hash(), number);
        }
        if provisional.deadline != u64::MAX {
            self.deadlines.insert((provisional.deadline, number));
        }
    }

    fn remove(&mut self, provisional: &Provisional, number: u64) {
        if let Some(label) = &provisional.label
            && self.labels.get(&label.hash()) == Some(&number)
        {
            self.labels.remove(&label.hash());
        }
        self.deadlines.remove(&(provisional.deadline, number));
    }
}
