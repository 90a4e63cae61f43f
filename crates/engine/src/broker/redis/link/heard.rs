//! What the link tells.

/// The reply to a command, as far as commands of this program have such replies.
#[derive(Debug)]
pub(crate) enum Reply<'a> {
    Nothing,
    Integer(i64),
    Bytes(&'a [u8]),
    /// Also a map: each key and then its value.
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
    Lost { tag: u64 },
    /// A message on a channel.
    Message { channel: &'a [u8], payload: &'a [u8] },
    /// Messages on this channel arrive from here on. Told again after each loss of the connection.
    Subscribed(&'a [u8]),
    /// Messages may have been lost before; from here on, all channels that are wanted are subscribed again.
    Resubscribed,
    /// A connection was lost, or seems dead, and why. It is made again. An attempt that fails is told of, too, unless
    /// for the same reason as the one before.
    Disconnected(&'a str),
    /// Redis refuses to be used, and why: a wrong password, for example. It is tried again. The same reason is told
    /// once.
    Unusable(&'a str),
    /// For the log.
    Warning(&'a str),
}
