//! A plain HTTP request in the hands of the application: what is still to be read of it, and to be sent in answer.

use wire::body::BodyDecoder;
use wire::http::Persistence;

/// Content that may wait for the application before the rest of a body is no longer read.
pub(crate) const MAX_UNTAKEN: usize = 64 * 1024;
/// Bytes of a body that are discarded after the answer to keep the connection.
pub(crate) const MAX_DISCARDED: usize = 256 * 1024;

/// One request, from the moment when it is passed to the application until its answer has been queued.
pub(crate) struct Exchange {
    /// Whether the answer has no body: the method is HEAD.
    pub(crate) head_only: bool,
    /// Whether the client sends its next request on this connection.
    pub(crate) keep_alive: bool,
    /// Whether the client understands chunks: it speaks HTTP/1.1.
    pub(crate) takes_chunks: bool,
    pub(crate) body: RequestBody,
    pub(crate) answer: Answer,
}

/// How much of a request's body the application has.
pub(crate) enum RequestBody {
    /// All of it.
    Taken,
    /// The rest is read as the application takes it.
    Streamed(Box<StreamedBody>),
}

/// A body that is read as the application takes it.
pub(crate) struct StreamedBody {
    pub(crate) decoder: BodyDecoder,
    /// Whether the application waits for more of it.
    pub(crate) is_awaited: bool,
    /// Whether the client holds it back until it is asked for (RFC 9110 §10.1.1).
    pub(crate) is_held_back: bool,
    /// Bytes of content received.
    pub(crate) received: usize,
    /// How long the application has waited for it until now, in milliseconds, less a second for each
    /// `BODY_PER_SECOND` received: so much of `handshake_timeout` is used up.
    pub(crate) waited: u64,
}

/// How much of the answer has been queued.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Nothing,
    /// The head, and a part of the body.
    Begun {
        rest: Rest,
        persistence: Persistence,
    },
}

/// What is left of the body of an answer.
#[derive(Clone, Copy)]
pub(crate) enum Rest {
    /// This many bytes.
    Length(u64),
    Chunks,
    /// Bytes until the connection is closed.
    UntilClose,
    /// The answer has no body. Its parts are dropped.
    Nothing,
}

impl Exchange {
    /// Whether more of the request's body is to be read.
    pub(crate) fn reads_on(&self) -> bool {
        match &self.body {
            RequestBody::Taken => false,
            RequestBody::Streamed(body) => !body.decoder.is_complete() && body.decoder.content().len() < MAX_UNTAKEN,
        }
    }

    /// Whether the connection can be used for another request afterwards. Not if the client may or may not send the body
    /// that it holds back, or has announced more of it than is worth reading.
    pub(crate) fn may_be_kept(&self) -> bool {
        self.keep_alive
            && match &self.body {
                RequestBody::Taken => true,
                RequestBody::Streamed(body) => {
                    let announced = body.decoder.announced().unwrap_or_default();
                    !body.is_held_back && announced <= MAX_DISCARDED as u64
                }
            }
    }

    /// Whether the whole body of the request has been received.
    pub(crate) fn has_body(&self) -> bool {
        match &self.body {
            RequestBody::Taken => true,
            RequestBody::Streamed(body) => body.decoder.is_complete(),
        }
    }

    pub(crate) fn has_begun_answer(&self) -> bool {
        matches!(self.answer, Answer::Begun { .. })
    }

    /// Whether the application waits for more of the body.
    pub(crate) fn awaits_body(&self) -> bool {
        matches!(&self.body, RequestBody::Streamed(body) if body.is_awaited)
    }

    /// Bytes of memory held for the body.
    pub(crate) fn memory(&self) -> usize {
        match &self.body {
            RequestBody::Taken => 0,
            RequestBody::Streamed(body) => body.decoder.buffered(),
        }
    }
}
