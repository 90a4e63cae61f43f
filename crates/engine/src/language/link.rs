//! One end of a Unix stream that carries frames, and accepted sockets beside them.
//!
//! Nothing waits here: what the stream does not accept stays in a bounded buffer. The descriptors of a `Sockets` frame
//! are sent with the frame's first byte, so they have always arrived when the frame has.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage};

use crate::language::message::{FrameBuffer, Message};
use crate::system::sockets::{RECEIVE, SEND};

/// Sockets in one frame; the kernel's limit for one call is 253.
pub(crate) const MAX_SOCKETS: usize = 64;
/// Memory that a buffer keeps for reuse.
const RETAIN_BYTES: usize = 512 * 1024;
/// Sent bytes stay in the buffer up to this size: moving the rest after each write would cost more.
const MAX_SENT: usize = 256 * 1024;

/// See the module documentation.
pub(crate) struct Link {
    stream: OwnedFd,
    pub(crate) input: FrameBuffer,
    /// The descriptors of the socket frames that have arrived.
    arrived: VecDeque<Vec<OwnedFd>>,
    output: Vec<u8>,
    sent: usize,
    /// Descriptors still to be sent, and where their frames begin in `output`.
    departing: VecDeque<(usize, Vec<Arc<OwnedFd>>)>,
    /// Whether the stream is full.
    pub(crate) blocked: bool,
    /// Whether the kernel allows no more descriptors in flight (unix(7)). It does not report when it does again.
    pub(crate) is_stuck: bool,
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Bytes.
    Some,
    /// Nothing for now.
    Nothing,
    /// The other end is closed.
    End,
}

impl Link {
    /// # Errors
    /// If the stream cannot be made non-blocking.
    pub(crate) fn new(stream: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&stream, true)?;
        Ok(Self {
            stream,
            input: FrameBuffer::default(),
            arrived: VecDeque::new(),
            output: Vec::new(),
            sent: 0,
            departing: VecDeque::new(),
            blocked: false,
            is_stuck: false,
        })
    }

    pub(crate) fn stream(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Bytes waiting to be sent.
    pub(crate) fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Queues a message, however much is already waiting.
    pub(crate) fn send(&mut self, message: &Message<'_>) {
        message.encode(&mut self.output);
    }

    /// Queues a message if then no more than `limit` bytes are waiting, or if none are waiting now. Returns false if it
    /// was not queued.
    pub(crate) fn send_within(&mut self, message: &Message<'_>, limit: usize) -> bool {
        let before = self.output.len();
        message.encode(&mut self.output);
        let fits = before == self.sent || self.unsent() <= limit;
        if !fits {
            self.output.truncate(before);
        }
        fits
    }

    /// The same with a whole frame.
    pub(crate) fn pass_within(&mut self, frame: &[u8], limit: usize) -> bool {
        let fits = self.unsent() == 0 || self.unsent() + frame.len() <= limit;
        if fits {
            self.output.extend_from_slice(frame);
        }
        fits
    }

    /// Queues sockets with the input read from them: at least one, and at most [`MAX_SOCKETS`].
    pub(crate) fn send_sockets(&mut self, sockets: Vec<Arc<OwnedFd>>, inputs: Vec<&[u8]>) {
        self.departing.push_back((self.output.len(), sockets));
        self.send(&Message::Sockets(inputs));
    }

    /// The descriptors of the next socket frame. Fewer than it says if this process cannot have so many.
    pub(crate) fn take_sockets(&mut self) -> Vec<OwnedFd> {
        self.arrived.pop_front().unwrap_or_default()
    }

    /// Sends as much as the stream accepts.
    ///
    /// # Errors
    /// If the other end is gone.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.is_stuck = false;
        while self.sent < self.output.len() && !self.blocked {
            let next = self.departing.iter().map(|(at, _)| *at).find(|at| *at > self.sent);
            let bytes = &self.output[self.sent..next.unwrap_or(self.output.len())];
            let sockets = self.departing.front().filter(|(at, _)| *at == self.sent).map(|(_, sockets)| &sockets[..]);
            match send(&self.stream, bytes, sockets.unwrap_or_default()) {
                Ok(sent) => {
                    if sockets.is_some() {
                        // They now belong to the receiver, and to the caller if it keeps them.
                        self.departing.pop_front();
                    }
                    self.sent += sent;
                }
                Err(Errno::AGAIN) => self.blocked = true,
                Err(Errno::INTR) => {}
                Err(Errno::TOOMANYREFS | Errno::NOBUFS) => {
                    self.is_stuck = true;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.output.shrink_to(RETAIN_BYTES);
            self.sent = 0;
        } else if self.sent > MAX_SENT.max(self.output.len() / 2) {
            self.output.drain(..self.sent);
            for (at, _) in &mut self.departing {
                *at -= self.sent;
            }
            self.sent = 0;
        }
        Ok(())
    }

    /// Discards what is queued: nobody will read it.
    pub(crate) fn discard(&mut self) {
        self.output = Vec::new();
        self.sent = 0;
        self.departing.clear();
    }

    /// Reads once, bytes only: the kernel closes descriptors sent by a stranger.
    ///
    /// # Errors
    /// The same as for [`Link::read`].
    pub(crate) fn read_bytes(&mut self) -> io::Result<Read> {
        loop {
            match rustix::io::read(&self.stream, self.input.room()) {
                Ok(0) => return Ok(Read::End),
                Ok(count) => {
                    self.input.filled(count);
                    return Ok(Read::Some);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Read::Nothing),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads once.
    ///
    /// # Errors
    /// The stream's errors, which amount to its end.
    pub(crate) fn read(&mut self) -> io::Result<Read> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut room = [IoSliceMut::new(self.input.room())];
        let received = loop {
            match rustix::net::recvmsg(&self.stream, &mut room, &mut beside, RECEIVE) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Read::Nothing),
                Err(error) => return Err(error.into()),
            }
        };
        let mut sockets = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                sockets.extend(descriptors);
            }
        }
        // If this process cannot have more descriptors, there are fewer than were sent, or none.
        if !sockets.is_empty() || received.flags.contains(ReturnFlags::CTRUNC) {
            self.arrived.push_back(sockets);
        }
        self.input.filled(received.bytes);
        Ok(if received.bytes == 0 { Read::End } else { Read::Some })
    }
}

fn send(stream: &OwnedFd, bytes: &[u8], sockets: &[Arc<OwnedFd>]) -> rustix::io::Result<usize> {
    if sockets.is_empty() {
        return rustix::net::send(stream, bytes, SEND);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(|socket| socket.as_fd()).collect();
    beside.push(SendAncillaryMessage::ScmRights(&borrowed));
    rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut beside, SEND)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::language::message::{Leave, content};

    fn links() -> (Link, Link) {
        let (one, other) = UnixStream::pair().expect("a pair");
        (Link::new(one.into()).expect("a link"), Link::new(other.into()).expect("a link"))
    }

    /// Moves everything queued at one end to the other, and returns the messages as text for comparison.
    fn moved(from: &mut Link, to: &mut Link) -> Vec<String> {
        let mut messages = Vec::new();
        loop {
            from.blocked = false;
            from.flush().expect("flushed");
            while to.read().expect("read") == Read::Some {
                while let Some(frame) = to.input.next_frame(usize::MAX).expect("a frame") {
                    let message = Message::decode(content(to.input.frame(frame))).expect("a message");
                    messages.push(format!("{message:?}"));
                }
            }
            if from.unsent() == 0 {
                return messages;
            }
        }
    }

    #[test]
    fn sockets_come_with_their_frames_between_other_messages() {
        let (mut one, mut other) = links();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let mut clients = Vec::new();
        let mut expected = Vec::new();
        for batch in [1, MAX_SOCKETS, 3] {
            let mut sockets = Vec::new();
            for _ in 0..batch {
                clients.push(TcpStream::connect(listener.local_addr().expect("an address")).expect("connected"));
                sockets.push(Arc::new(listener.accept().expect("accepted").0.into()));
            }
            let leave = Message::Leave(Leave::Replace);
            one.send(&leave);
            expected.push(format!("{leave:?}"));
            let inputs = vec![&b"GET"[..]; batch];
            expected.push(format!("{:?}", Message::Sockets(inputs.clone())));
            one.send_sockets(sockets, inputs);
        }
        assert_eq!(moved(&mut one, &mut other), expected);
        let sockets = (0..3).flat_map(|_| other.take_sockets()).collect::<Vec<_>>();
        assert_eq!(sockets.len(), clients.len());
        for (number, socket) in sockets.into_iter().enumerate() {
            TcpStream::from(socket).write_all(&[number as u8]).expect("written");
        }
        for (number, mut client) in clients.into_iter().enumerate() {
            let mut byte = [0];
            client.read_exact(&mut byte).expect("read");
            assert_eq!(usize::from(byte[0]), number);
        }
    }

    #[test]
    fn more_than_the_stream_takes_goes_in_pieces() {
        let (mut one, mut other) = links();
        let input = vec![7; 3 << 20];
        let message = Message::Sockets(vec![&input]);
        for _ in 0..4 {
            one.send(&message);
        }
        assert_eq!(moved(&mut one, &mut other).len(), 4);
    }

    #[test]
    fn beyond_the_limit_only_what_is_alone_is_queued() {
        let (mut one, mut other) = links();
        let input = vec![7; 1000];
        let long = Message::Sockets(vec![&input]);
        assert!(one.send_within(&long, 500));
        assert!(!one.send_within(&Message::Ready, 500));
        assert!(!one.pass_within(&[0; 10], 500));
        assert_eq!(moved(&mut one, &mut other).len(), 1);
        assert!(one.send_within(&Message::Ready, 500));
    }

    #[test]
    fn the_end_is_told() {
        let (mut one, other) = links();
        assert_eq!(one.read().expect("read"), Read::Nothing);
        drop(other);
        assert_eq!(one.read().expect("read"), Read::End);
        one.send(&Message::Ready);
        assert!(one.flush().is_err());
        one.discard();
        assert_eq!(one.unsent(), 0);
    }
}
