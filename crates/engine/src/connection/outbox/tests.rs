//! What an outbox writes, and in which order.

mod model;

use std::os::unix::fs::FileExt;

use super::*;
use wire::frame::{FirstByte, Opcode};

/// Takes `room` bytes at most, then blocks.
struct Socket {
    room: usize,
    taken: Vec<u8>,
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(self.room);
        self.room -= count;
        self.taken.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Socket {}

/// The same, and the kernel sends files, if it can.
struct Sending {
    socket: Socket,
    can_send: bool,
    /// Bytes of files that were sent.
    sent: usize,
}

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Sending {
    const SENDS_FILES: bool = true;

    fn send_file(&mut self, file: &File, offset: u64, count: usize) -> io::Result<usize> {
        if !self.can_send {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut bytes = vec![0; count.min(50_000)];
        let read = file.read_at(&mut bytes, offset)?;
        let written = if read == 0 { 0 } else { self.socket.write(&bytes[..read])? };
        self.sent += written;
        Ok(written)
    }
}

fn socket(room: usize) -> Socket {
    Socket { room, taken: Vec::new() }
}

fn frame_of(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(&mut bytes, FirstByte::whole(Opcode::Binary), payload);
    bytes
}

/// Asserts that the memory of an outbox is the sum of its parts, whatever was done with it.
fn assert_counted(outbox: &Outbox) {
    let own: usize = outbox.chunks.iter().map(Chunk::memory).sum();
    let queue = if outbox.chunks.is_empty() { 0 } else { outbox.chunks.capacity() * size_of::<Chunk>() };
    let sealed = outbox.extra.as_ref().map_or(0, |extra| extra.sealed.capacity());
    let index = outbox.extra.as_ref().map_or(0, |extra| extra.index.memory());
    let index = if outbox.chunks.is_empty() { 0 } else { index };
    assert_eq!(outbox.memory(), own + queue + sealed + index);
}

#[test]
fn own_and_shared_frames_leave_in_the_order_they_came() {
    for shared_size in [10, 5_000] {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        let shared: Arc<[u8]> = frame_of(&vec![2; shared_size]).into();
        outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(b"one")));
        outbox.share(&mut pool, &shared);
        outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(b"three")));
        let expected = [frame_of(b"one"), shared.to_vec(), frame_of(b"three")].concat();
        assert_eq!(outbox.len(), expected.len());
        let mut all = Vec::new();
        while !outbox.is_empty() {
            let mut socket = socket(7);
            outbox.write_to(&mut socket, &mut pool, usize::MAX).expect("no error");
            all.extend(socket.taken);
            assert_counted(&outbox);
        }
        assert_eq!(all, expected);
    }
}

#[test]
fn parts_that_are_kept_leave_in_their_order_and_are_let_go() {
    /// Counts itself.
    struct Part {
        bytes: Vec<u8>,
        _count: Arc<()>,
    }

    impl AsRef<[u8]> for Part {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }

    for room in [999, 70_000, usize::MAX] {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        let (count, mut expected) = (Arc::new(()), Vec::new());
        for number in 0..3 {
            outbox.append(&mut pool, |out| out.extend_from_slice(b"head"));
            expected.extend(b"head");
            for length in [1, 20_000, 100_000] {
                outbox.append_between(b"before");
                outbox.keep(Box::new(Part { bytes: vec![number; length], _count: Arc::clone(&count) }));
                outbox.append_between(b"after");
                expected.extend([&b"before"[..], &vec![number; length], b"after"].concat());
            }
        }
        assert_eq!(outbox.len(), expected.len());
        assert!(outbox.weight() >= expected.len());
        let mut all = Vec::new();
        while !outbox.is_empty() {
            let mut socket = socket(room);
            outbox.write_to(&mut socket, &mut pool, usize::MAX).expect("no error");
            all.extend(socket.taken);
            assert_counted(&outbox);
        }
        assert!(all == expected);
        assert_eq!(Arc::strong_count(&count), 1);
    }
}

#[test]
fn the_rest_of_frames_that_were_begun_elsewhere_leaves_before_what_follows() {
    let shared: Arc<[u8]> = [frame_of(b"12345678"), frame_of(b"abcdefgh")].concat().into();
    for sent in 1..shared.len() {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        outbox.share_rest(&shared, sent);
        outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(b"next")));
        assert_eq!(outbox.len(), shared.len() - sent + frame_of(b"next").len());
        let mut after = socket(usize::MAX);
        outbox.write_to(&mut after, &mut pool, usize::MAX).expect("no error");
        assert_eq!(after.taken, [&shared[sent..], &frame_of(b"next")].concat());
        assert!(outbox.is_empty());
    }
}

#[test]
fn a_budget_ends_the_write() {
    let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
    for _ in 0..100 {
        outbox.share(&mut pool, &frame_of(&[0; 3_000]).into());
    }
    let progress = outbox.write_to(&mut socket(usize::MAX), &mut pool, 10_000).expect("no error");
    assert_eq!(progress, Progress::OverBudget);
    assert!(!outbox.is_empty());
}

/// A file with this content that no other program can find.
fn file_of(content: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!("outbox-{}-{:?}", std::process::id(), std::thread::current().id()));
    let mut options = File::options();
    let mut file = options.read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
    std::fs::remove_file(path).expect("removed");
    file.write_all(content).expect("written");
    file
}

#[test]
fn a_part_of_a_file_follows_what_is_queued_and_is_read_piece_by_piece() {
    let content: Vec<u8> = (0..3 * PIECE as u32).map(|number| number as u8 ^ (number >> 8) as u8).collect();
    let (offset, length) = (1000, 2 * PIECE + 17);
    for room in [999, PIECE, usize::MAX] {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        outbox.append(&mut pool, |out| out.extend_from_slice(b"HTTP/1.1 200 ..."));
        outbox.append_file(file_of(&content), offset as u64, length);
        let mut all = Vec::new();
        while !outbox.is_empty() {
            let mut socket = socket(room);
            outbox.write_to(&mut socket, &mut pool, usize::MAX).expect("no error");
            all.extend(socket.taken);
            assert_counted(&outbox);
            let in_memory: usize = outbox.chunks.iter().map(|chunk| chunk.bytes().len()).sum();
            assert!(in_memory <= 2 * PIECE, "{in_memory}");
        }
        assert_eq!(all, [b"HTTP/1.1 200 ...", &content[offset..offset + length]].concat());
        assert!(outbox.chunks.is_empty());
    }
}

#[test]
fn a_file_that_has_become_shorter_is_an_error() {
    let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
    outbox.append_file(file_of(b"short"), 0, 6);
    let error = outbox.write_to(&mut socket(usize::MAX), &mut pool, usize::MAX).expect_err("an error");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn discarding_keeps_the_frame_under_way() {
    for sent in 0..30 {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        let frames = [frame_of(b"12345678"), frame_of(b"abcdefgh"), frame_of(b"ABCDEFGH")].concat();
        outbox.append(&mut pool, |out| out.extend_from_slice(&frames));
        let mut before = socket(sent);
        outbox.write_to(&mut before, &mut pool, usize::MAX).expect("no error");
        outbox.discard_unbegun(&mut pool);
        assert_counted(&outbox);
        let mut after = socket(usize::MAX);
        outbox.write_to(&mut after, &mut pool, usize::MAX).expect("no error");
        let all = [before.taken, after.taken].concat();
        assert_eq!(all.len(), sent.div_ceil(10) * 10);
        assert_eq!(all, frames[..all.len()]);
    }
}

#[test]
fn discarding_keeps_the_answer_to_the_handshake() {
    let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
    outbox.append(&mut pool, |out| out.extend_from_slice(b"HTTP/1.1 101 ..."));
    outbox.end_preface(&mut pool);
    outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(b"x")));
    outbox.write_to(&mut socket(4), &mut pool, usize::MAX).expect("no error");
    outbox.discard_unbegun(&mut pool);
    let mut rest = socket(usize::MAX);
    outbox.write_to(&mut rest, &mut pool, usize::MAX).expect("no error");
    assert_eq!(rest.taken, b"/1.1 101 ...");
}

#[test]
fn discarding_behind_the_answer_to_the_handshake_keeps_the_frame_under_way() {
    let answer = b"HTTP/1.1 101 ...";
    for sent in 0..=answer.len() + 20 {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        outbox.append(&mut pool, |out| out.extend_from_slice(answer));
        outbox.end_preface(&mut pool);
        outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(&[0x7f; 8])));
        outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(&[0x7f; 8])));
        let (mut before, mut after) = (socket(sent), socket(usize::MAX));
        outbox.write_to(&mut before, &mut pool, usize::MAX).expect("no error");
        outbox.discard_unbegun(&mut pool);
        outbox.write_to(&mut after, &mut pool, usize::MAX).expect("no error");
        let all = [before.taken, after.taken].concat();
        let frames = all.len().saturating_sub(answer.len());
        assert!(sent == 0 || all.starts_with(answer));
        assert_eq!(frames, sent.saturating_sub(answer.len()).div_ceil(10) * 10);
    }
}

#[test]
fn a_long_queue_is_counted_as_it_grows_and_shrinks() {
    let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
    let shared: Arc<[u8]> = frame_of(&[2; 5_000]).into();
    for number in 0..2_000 {
        outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(&[1; 300])));
        if number % 100 == 0 {
            outbox.share(&mut pool, &shared);
        }
        assert_counted(&outbox);
    }
    assert!((outbox.len() - 20 * shared.len()..outbox.len() * 3 / 2).contains(&outbox.memory()));
    while !outbox.is_empty() {
        outbox.write_to(&mut socket(1_000), &mut pool, usize::MAX).expect("no error");
        assert_counted(&outbox);
    }
    assert_eq!(outbox.memory(), 0);
}

#[test]
fn a_discarded_queue_needs_little_memory_though_the_pool_has_large_buffers() {
    let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
    for _ in 0..2 {
        outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(&[1; 100_000])));
        outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(&[1; 100])));
        outbox.write_to(&mut socket(100_010), &mut pool, usize::MAX).expect("no error");
        outbox.discard_unbegun(&mut pool);
        outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(b"the end")));
        assert!(outbox.memory() < 1_000, "{}", outbox.memory());
        outbox.clear(&mut pool);
    }
}

#[test]
fn what_waits_in_a_buffer_that_is_too_large_is_fitted() {
    let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
    outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(&[1; 100_000])));
    outbox.write_to(&mut socket(usize::MAX), &mut pool, usize::MAX).expect("no error");
    outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(b"short")));
    assert!(outbox.memory() > 100_000);
    outbox.fit();
    assert!(outbox.memory() < 1_000);
    assert_counted(&outbox);
}

#[test]
fn a_frame_that_many_share_counts_until_the_last_lets_go() {
    let mut pool = Pool::default();
    let mut outboxes = [Outbox::default(), Outbox::default(), Outbox::default()];
    let frame: Arc<[u8]> = frame_of(&[2; 5_000]).into();
    for outbox in &mut outboxes {
        outbox.share(&mut pool, &frame);
    }
    // One outbox is written before the fan-out has ended.
    outboxes[0].write_to(&mut socket(usize::MAX), &mut pool, usize::MAX).expect("no error");
    assert_eq!(pool.shared(), 0);
    pool.count_shared(&frame);
    let length = frame.len();
    drop(frame);
    assert_eq!(pool.shared(), length);
    outboxes[1].clear(&mut pool);
    assert_eq!(pool.shared(), length);
    outboxes[2].write_to(&mut socket(usize::MAX), &mut pool, usize::MAX).expect("no error");
    assert_eq!(pool.shared(), 0);
    let nobody: Arc<[u8]> = frame_of(&[2; 5_000]).into();
    pool.count_shared(&nobody);
    assert_eq!(pool.shared(), 0);
}

#[test]
fn a_file_is_sent_by_the_kernel_if_it_can() {
    let content: Vec<u8> = (0..700_001).map(|number: u32| (number % 251) as u8).collect();
    for can_send in [true, false] {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        outbox.append(&mut pool, |out| out.extend_from_slice(b"head;"));
        outbox.append_file(file_of(&content), 3, content.len() - 4);
        let mut all = Vec::new();
        let mut sent = 0;
        for turn in 0.. {
            let socket = socket(if turn % 2 == 0 { 33_333 } else { 7 });
            let mut sending = Sending { socket, can_send, sent: 0 };
            let progress = outbox.write_to(&mut sending, &mut pool, 20_000).expect("no error");
            assert_counted(&outbox);
            all.extend(sending.socket.taken);
            sent += sending.sent;
            if progress == Progress::Empty {
                break;
            }
        }
        assert_eq!(all, [b"head;", &content[3..content.len() - 1]].concat());
        assert!(outbox.is_empty() && outbox.memory() == 0);
        assert_eq!(sent, if can_send { content.len() - 4 - FIRST_PIECE } else { 0 });
    }
}

#[test]
fn a_file_that_has_become_shorter_is_an_error_when_the_kernel_sends_it_too() {
    let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
    outbox.append_file(file_of(&[7; 300_000]), 0, 300_001);
    let mut sending = Sending { socket: socket(usize::MAX), can_send: true, sent: 0 };
    let error = outbox.write_to(&mut sending, &mut pool, usize::MAX).expect_err("an error");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(sending.socket.taken.len(), 300_000);
}

fn provisional(payload: &[u8], label: Option<&str>, deadline: u64) -> Arc<Provisional> {
    let label = label.map(|key| Arc::new(Label::new("price", Some(key))));
    Arc::new(Provisional { frame: frame_of(payload).into(), label, in_order: false, deadline })
}

/// Everything that is left in an outbox.
fn rest_of(outbox: &mut Outbox, pool: &mut Pool) -> Vec<u8> {
    let mut socket = socket(usize::MAX);
    outbox.write_to(&mut socket, pool, usize::MAX).expect("no error");
    socket.taken
}

#[test]
fn a_frame_takes_the_place_of_the_one_with_its_label() {
    for others in [0, 20] {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(b"first")));
        assert!(!outbox.put(&mut pool, &provisional(b"a1", Some("a"), u64::MAX)));
        outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(b"between")));
        let mut expected = [frame_of(b"first"), frame_of(b"a2"), frame_of(b"between")].concat();
        for number in 0..others {
            let number = number.to_string();
            assert!(!outbox.put(&mut pool, &provisional(number.as_bytes(), Some(&number), u64::MAX)));
            expected.extend(frame_of(number.as_bytes()));
        }
        assert!(!outbox.put(&mut pool, &provisional(b"no label", None, u64::MAX)));
        expected.extend(frame_of(b"no label"));
        assert!(outbox.put(&mut pool, &provisional(b"a2", Some("a"), u64::MAX)));
        assert_eq!(outbox.len(), expected.len());
        assert_eq!(rest_of(&mut outbox, &mut pool), expected);
    }
}

#[test]
fn if_there_is_an_order_a_frame_that_replaces_another_comes_last() {
    let in_order = |payload: &[u8], key: &str| {
        let Provisional { frame, label, deadline, .. } = &*provisional(payload, Some(key), u64::MAX);
        Arc::new(Provisional { frame: frame.clone(), label: label.clone(), in_order: true, deadline: *deadline })
    };
    for others in [0, 20] {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(b"first")));
        let mut expected = frame_of(b"first");
        outbox.put(&mut pool, &in_order(b"a1", "a"));
        for number in 0..others {
            let number = number.to_string();
            outbox.put(&mut pool, &in_order(number.as_bytes(), &number));
            expected.extend(frame_of(number.as_bytes()));
        }
        outbox.put(&mut pool, &in_order(b"b1", "b"));
        assert!(outbox.put(&mut pool, &in_order(b"a2", "a")));
        assert!(outbox.put(&mut pool, &in_order(b"a3", "a")));
        expected.extend([frame_of(b"b1"), frame_of(b"a3")].concat());
        assert_eq!(outbox.len(), expected.len());
        assert_eq!(rest_of(&mut outbox, &mut pool), expected);
    }
}

#[test]
fn a_frame_that_has_been_begun_is_neither_replaced_nor_left_out() {
    let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
    outbox.put(&mut pool, &provisional(b"a1", Some("a"), 1));
    outbox.write_to(&mut socket(1), &mut pool, usize::MAX).expect("no error");
    assert_eq!(outbox.leave_out_expired(9, &mut pool), 0);
    assert!(!outbox.put(&mut pool, &provisional(b"a2", Some("a"), u64::MAX)));
    assert!(outbox.put(&mut pool, &provisional(b"a3", Some("a"), u64::MAX)));
    assert_eq!(rest_of(&mut outbox, &mut pool), [&frame_of(b"a1")[1..], &frame_of(b"a3")].concat());
}

#[test]
fn what_expires_under_a_frame_that_is_stuck_takes_no_room() {
    let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
    outbox.append(&mut pool, |out| out.extend_from_slice(&frame_of(b"stuck")));
    outbox.write_to(&mut socket(1), &mut pool, usize::MAX).expect("no error");
    let (cost, memory) = (outbox.cost(), outbox.memory());
    for now in 0..10_000 {
        outbox.leave_out_expired(now, &mut pool);
        outbox.put(&mut pool, &provisional(b"x", Some(&now.to_string()), now + 20));
        assert!(outbox.cost() < cost + 50 * (CHUNK_COST + 3) && outbox.memory() < memory + 20_000);
    }
    assert_eq!(outbox.leave_out_expired(20_000, &mut pool), 21);
    assert!(outbox.cost() == cost && outbox.extra.is_none());
    assert_eq!(rest_of(&mut outbox, &mut pool), &frame_of(b"stuck")[1..]);
}

#[test]
fn neither_a_deadline_nor_a_label_makes_an_outbox_larger() {
    assert_eq!(size_of::<Outbox>(), 64);
    assert_eq!(size_of::<Chunk>(), size_of::<Vec<u8>>());
}
