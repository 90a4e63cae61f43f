//! What the application has been told about the members of topics, by the workers that have their connections.
//!
//! A worker that is killed cannot tell that its members have left. Another one does, for those of whom `join` was told.

use std::collections::{BTreeMap, VecDeque};

use crate::registry::{Fd, Registry};

/// Names one stay of a connection in a topic. Each process counts the stays of its connections.
type StayId = (Fd, u64);

/// Set in the numbers of stays on other hosts.
const ELSEWHERE: u64 = 1 << 63;

struct Stay {
    topic: Box<str>,
    info: Box<str>,
    join_is_told: bool,
    life: Life,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    /// It is a member.
    Present,
    /// It has left, and this worker has yet to tell.
    Left(u8),
    /// It has left, and no worker has been asked to tell.
    Lost,
}

/// What a worker is asked to tell.
pub(super) struct Lost<'a> {
    pub(super) fd: Fd,
    pub(super) number: u64,
    pub(super) topic: &'a str,
    pub(super) info: &'a str,
}

/// All stays of which the application has not been told that they are over.
#[derive(Default)]
pub(super) struct Attendance {
    stays: BTreeMap<StayId, Stay>,
    /// Those that are lost.
    unasked: VecDeque<StayId>,
    /// The slot of the worker that was asked last.
    pub(super) last_asked: usize,
    /// How many stays on other hosts were lost.
    lost_elsewhere: u64,
}

impl Attendance {
    /// Notes that a stay has begun, or that something else is to be known about it.
    pub(super) fn begin(&mut self, fd: Fd, number: u64, topic: &str, info: &str) {
        let (topic, info) = (topic.into(), info.into());
        match self.stays.get_mut(&(fd, number)) {
            Some(stay) => stay.info = info,
            None => {
                self.stays.insert((fd, number), Stay { topic, info, join_is_told: false, life: Life::Present });
            }
        }
    }

    /// Notes that a stay is over. Its worker is about to tell.
    pub(super) fn end(&mut self, fd: Fd, number: u64) {
        if let Some(stay) = self.stays.get_mut(&(fd, number)) {
            stay.life = Life::Left(Registry::slot_of(fd));
        }
    }

    /// Notes that the worker in a slot tells that a stay has begun.
    pub(super) fn join_is_told(&mut self, slot: u8, fd: Fd, number: u64) {
        if let Some(stay) = self.stays.get_mut(&(fd, number)).filter(|_| Registry::slot_of(fd) == slot) {
            stay.join_is_told = true;
        }
    }

    /// Notes that the worker in a slot tells that a stay is over.
    pub(super) fn leave_is_told(&mut self, slot: u8, fd: Fd, number: u64) {
        if self.stays.get(&(fd, number)).is_some_and(|stay| stay.life == Life::Left(slot)) {
            self.stays.remove(&(fd, number));
        }
    }

    /// Notes that a worker is gone. Returns the topics and connections whose stays have ended with it.
    pub(super) fn lose(&mut self, slot: u8) -> Vec<(Box<str>, Fd)> {
        let mut ended = Vec::new();
        let unasked = &mut self.unasked;
        self.stays.retain(|(fd, number), stay| {
            let is_lost = match stay.life {
                Life::Present if Registry::slot_of(*fd) == slot => {
                    ended.push((stay.topic.clone(), *fd));
                    true
                }
                Life::Left(asked) => asked == slot,
                _ => false,
            };
            if is_lost && stay.join_is_told {
                stay.life = Life::Lost;
                unasked.push_back((*fd, *number));
            }
            // Nobody knows of a stay of which not even `join` was told.
            !is_lost || stay.join_is_told
        });
        ended
    }

    /// Notes that a stay on another host is lost, and that no other host tells.
    pub(super) fn note_lost(&mut self, topic: &str, fd: Fd, info: &str) {
        self.lost_elsewhere += 1;
        let id = (fd, ELSEWHERE | self.lost_elsewhere);
        let (topic, info) = (topic.into(), info.into());
        self.stays.insert(id, Stay { topic, info, join_is_told: true, life: Life::Lost });
        self.unasked.push_back(id);
    }

    /// The members on this host: topic, connection, and what is to be known about it.
    pub(super) fn present(&self) -> impl Iterator<Item = (&str, Fd, &str)> {
        let is_present = |stay: &Stay| stay.life == Life::Present;
        let stays = self.stays.iter().filter(move |(_, stay)| is_present(stay));
        stays.map(|((fd, _), stay)| (&*stay.topic, *fd, &*stay.info))
    }

    /// Forgets all stays on this host: other hosts tell that they are over.
    pub(super) fn forget_own(&mut self) {
        self.stays.retain(|(_, number), _| number & ELSEWHERE != 0);
        self.unasked.retain(|(_, number)| number & ELSEWHERE != 0);
    }

    /// The first stay that is lost.
    pub(super) fn next(&self) -> Option<Lost<'_>> {
        let (fd, number) = *self.unasked.front()?;
        let Stay { topic, info, .. } = self.stays.get(&(fd, number))?;
        Some(Lost { fd, number, topic, info })
    }

    /// Notes that a worker has been asked to tell of the first.
    pub(super) fn is_asked(&mut self, slot: u8) {
        if let Some(stay) = self.unasked.pop_front().and_then(|id| self.stays.get_mut(&id)) {
            stay.life = Life::Left(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd(slot: u64, number: u64) -> Fd {
        (slot << 38) + number
    }

    fn next(attendance: &Attendance) -> Option<(Fd, u64)> {
        attendance.next().map(|lost| (lost.fd, lost.number))
    }

    #[test]
    fn each_leave_is_told_once_whatever_becomes_of_the_workers() {
        let mut attendance = Attendance::default();
        for number in 1..=3 {
            attendance.begin(fd(0, number), number, "room", "null");
            attendance.join_is_told(0, fd(0, number), number);
        }
        attendance.begin(fd(1, 1), 1, "room", "null");
        let mut ended: Vec<Fd> = attendance.lose(0).into_iter().map(|(_, fd)| fd).collect();
        ended.sort_unstable();
        assert_eq!(ended, [fd(0, 1), fd(0, 2), fd(0, 3)]);
        attendance.is_asked(1);
        attendance.is_asked(2);
        // Not that worker's to tell.
        attendance.leave_is_told(2, fd(0, 1), 1);
        attendance.leave_is_told(1, fd(0, 1), 1);
        // Of the member of this worker, nobody knows.
        assert_eq!(attendance.lose(1).len(), 1);
        assert_eq!(next(&attendance), Some((fd(0, 3), 3)));
        assert!(attendance.lose(2).is_empty());
        attendance.is_asked(3);
        assert_eq!(next(&attendance), Some((fd(0, 2), 2)));
        attendance.is_asked(3);
        assert_eq!(next(&attendance), None);
        attendance.leave_is_told(3, fd(0, 2), 2);
        attendance.leave_is_told(3, fd(0, 3), 3);
        assert!(attendance.stays.is_empty());
    }

    #[test]
    fn a_leave_that_waits_behind_its_join_is_told_by_another_if_the_join_was() {
        for is_told in [true, false] {
            let mut attendance = Attendance::default();
            attendance.begin(fd(0, 1), 1, "room", "null");
            attendance.end(fd(0, 1), 1);
            attendance.begin(fd(0, 1), 2, "room", "null");
            if is_told {
                attendance.join_is_told(0, fd(0, 1), 1);
            }
            // Only one of both stays has not been left.
            assert_eq!(attendance.lose(0).len(), 1);
            assert_eq!(next(&attendance), is_told.then_some((fd(0, 1), 1)));
            assert_eq!(attendance.stays.len(), usize::from(is_told));
        }
    }
}
