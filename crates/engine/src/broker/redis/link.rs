//! The thread that talks to Redis, and its front, which the hub's thread holds.
//!
//! It has two connections: commands go through one, in one pipeline; messages come through the other. Names are
//! resolved and connections are made in the thread, so that nobody else waits. What waits in either direction is
//! bounded, in messages and in bytes.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::settings::BrokerSettings;

/// See the module documentation.
pub(crate) struct Link {}

/// The reply to a command, as far as commands of this program have such replies.
#[derive(Debug)]
pub(crate) enum Reply<'a> {
    Nothing,
    Integer(i64),
    Bytes(&'a [u8]),
    List(Vec<Reply<'a>>),
}

/// What the link tells.
#[derive(Debug)]
pub(crate) enum Heard<'a> {
    /// Commands go to a server with this id, which changes when it is another process. Told for each connection.
    Connected { run_id: &'a str },
    /// The reply to a command, in the order of the commands; or the text of an error.
    Reply { tag: u64, reply: Result<Reply<'a>, &'a str> },
    /// The command has no reply: it was not sent in time, or the connection was lost before the reply.
    Lost { tag: u64, was_sent: bool },
    /// A message on a channel.
    Message { channel: &'a [u8], payload: &'a [u8] },
    /// Messages on this channel arrive from here on. Told again after each loss of the connection.
    Subscribed(&'a [u8]),
    /// Messages may have been lost before; from here on, all channels that are wanted are subscribed again.
    Resubscribed,
    /// A connection was lost, or seems dead, and why. It is made again.
    Disconnected(&'a str),
    /// Redis refuses to be used, and why: a wrong password, for example. It is tried again.
    Unusable(&'a str),
}

impl Link {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there is no thread or descriptor.
    pub(crate) fn start(settings: &BrokerSettings) -> io::Result<Self> {
        todo!()
    }

    /// Readable when there is something to hear.
    pub(crate) fn fileno(&self) -> BorrowedFd<'_> {
        todo!()
    }

    /// Queues a command; `tag` comes back with its reply. A command that cannot be sent within `patience` is lost.
    /// Returns false if it does not fit into the queue.
    pub(crate) fn command(&mut self, tag: u64, patience: Duration, parts: &[&[u8]]) -> bool {
        todo!()
    }

    /// Wants the messages of a channel, until [`Link::unsubscribe`].
    pub(crate) fn subscribe(&mut self, channel: &[u8]) {
        todo!()
    }

    /// Ends what [`Link::subscribe`] has begun.
    pub(crate) fn unsubscribe(&mut self, channel: &[u8]) {
        todo!()
    }

    /// Passes what was queued to the thread.
    pub(crate) fn flush(&mut self) {
        todo!()
    }

    /// Takes what the thread has to tell.
    pub(crate) fn hear(&mut self, tell: &mut dyn FnMut(Heard<'_>)) {
        todo!()
    }
}
