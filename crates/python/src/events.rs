//! The events of a turn as Python objects.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::{Answer, EndpointId, Event, Fd, Leave, MemberEvent, OUTSIDE, Payload, Refused, Relief, Shortage, Token};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt};
use wire::frame::Opcode;
use wire::http::Head;

use crate::frame::{Frame, Frames};
use crate::reactor::Reactor;
use crate::text::Texts;

/// What an [`Event`] is turned into while the reactor is borrowed. Python is entered only afterwards.
pub(crate) enum Step {
    Message(Message),
    Other(Other),
}

/// A message for its handler.
pub(crate) struct Message {
    pub(crate) fd: Fd,
    pub(crate) endpoint: EndpointId,
    data: Py<PyAny>,
    opcode: Opcode,
}

impl Message {
    /// Its connection, and its `str` or `bytes`.
    pub(crate) fn into_parts(self) -> (Fd, Py<PyAny>) {
        (self.fd, self.data)
    }
}

/// Anything but a message.
pub(crate) enum Other {
    Handshake(Token, Arc<Head>, SocketAddr, EndpointId),
    /// Without a body if the application takes it as it arrives.
    Request(Token, Arc<Head>, SocketAddr, EndpointId, Option<Py<PyBytes>>),
    Closed(Fd, EndpointId, u16, String),
    Drained(Fd, EndpointId),
    PipeMessage(Option<u8>, Py<PyAny>),
    Answered(u64, Box<Answer>),
    Gone(Fd),
    Room(Fd),
    Progress(Token),
    Member(MemberEvent, String, Fd, u64, String),
    TopicsExceeded(Fd),
    Refused(Box<Refused>),
    Relieved(Relief),
    Leave(Leave),
    Drain(Duration),
    AcceptPaused(String),
    Shortage(Shortage),
    CertificateRead(Option<String>),
}

/// The worker that a message comes from; `None` if it comes from another program.
fn sender(from: u8) -> Option<u8> {
    (from != OUTSIDE).then_some(from)
}

impl Step {
    #[inline(always)]
    pub(crate) fn of<'py>(py: Python<'py>, event: Event<'_>, texts: &mut Texts<'py>) -> Self {
        let other = match event {
            Event::Message { fd, endpoint, payload: Payload::Text(text) } => {
                let data = texts.make(py, text).into_any().unbind();
                return Self::Message(Message { fd, endpoint, data, opcode: Opcode::Text });
            }
            Event::Message { fd, endpoint, payload: Payload::Binary(bytes) } => {
                let data = PyBytes::new(py, bytes).into_any().unbind();
                return Self::Message(Message { fd, endpoint, data, opcode: Opcode::Binary });
            }
            Event::Handshake { token, head, peer, endpoint } => Other::Handshake(token, head, peer, endpoint),
            Event::Request { token, head, peer, endpoint, body } => {
                let body = body.map(|body| PyBytes::new(py, &body).unbind());
                Other::Request(token, Arc::new(head), peer, endpoint, body)
            }
            Event::Closed { fd, endpoint, code, reason } => Other::Closed(fd, endpoint, code, reason),
            Event::Drained { fd, endpoint } => Other::Drained(fd, endpoint),
            Event::PipeMessage { from, payload: Payload::Text(text) } => {
                Other::PipeMessage(sender(from), texts.make(py, text).into_any().unbind())
            }
            Event::PipeMessage { from, payload: Payload::Binary(bytes) } => {
                Other::PipeMessage(sender(from), PyBytes::new(py, bytes).into_any().unbind())
            }
            Event::Answered { number, answer } => Other::Answered(number, answer),
            Event::Gone { fd } => Other::Gone(fd),
            Event::Room { fd } => Other::Room(fd),
            Event::Progress { token } => Other::Progress(token),
            Event::Member { event, topic, fd, number, info } => {
                Other::Member(event, topic.to_owned(), fd, number, info.to_owned())
            }
            Event::TopicsExceeded { fd } => Other::TopicsExceeded(fd),
            Event::Refused(refused) => Other::Refused(refused),
            Event::Relieved(relief) => Other::Relieved(relief),
            Event::Leave(why) => Other::Leave(why),
            Event::Drain(time) => Other::Drain(time),
            Event::Shortage(shortage) => Other::Shortage(shortage),
            Event::AcceptPaused { error } => Other::AcceptPaused(engine::explain(&error)),
            Event::CertificateRead(result) => Other::CertificateRead(result.err()),
        };
        Self::Other(other)
    }
}

/// What a turn keeps from one message to the next.
#[derive(Default)]
pub(crate) struct Kept<'py> {
    /// Messages of one connection arrive together, so its id is looked up once for all of them.
    last: Option<(Fd, Bound<'py, PyInt>)>,
    frames: Frames<'py>,
    pub(crate) texts: Texts<'py>,
}

impl<'py> Kept<'py> {
    /// The frame of a message, whose connection is the current one from here on.
    #[inline(always)]
    pub(crate) fn frame(
        &mut self,
        py: Python<'py>,
        reactor: &Reactor,
        message: Message,
    ) -> PyResult<Bound<'py, Frame>> {
        let Message { fd, data, opcode, .. } = message;
        let id = match &self.last {
            Some((same, id)) if *same == fd => id,
            _ => {
                let id = &self.last.insert((fd, reactor.id(py, fd)?)).1;
                reactor.current.set(id, fd);
                id
            }
        };
        self.frames.take(id, data, opcode, &reactor.home)
    }

    /// Takes back a frame whose handler has returned.
    #[inline(always)]
    pub(crate) fn release(&mut self, frame: Bound<'py, Frame>) {
        let py = frame.py();
        if let Some(data) = self.frames.give_back(frame) {
            self.texts.give_back(py, data);
        }
    }
}

/// The events of a turn, for async handlers that take them one after another.
pub(crate) struct Events<'a, 'py> {
    pub(crate) py: Python<'py>,
    pub(crate) reactor: &'a Reactor,
    pub(crate) kept: Kept<'py>,
}

impl<'py> Events<'_, 'py> {
    /// The next one. `None` if there are no more, or the turn's budget is used up.
    ///
    /// The turn's own loop does not call this: its closure has the engine's code compiled for that loop alone, as a part
    /// of it.
    #[inline(never)]
    pub(crate) fn next(&mut self) -> PyResult<Option<Step>> {
        let (py, texts) = (self.py, &mut self.kept.texts);
        Ok(self.reactor.engine()?.next(|event| Step::of(py, event, texts)))
    }
}

/// Clears the current id at the end of a turn, whose object is then released.
pub(crate) struct ClearCurrent<'a>(pub(crate) &'a Reactor);

impl Drop for ClearCurrent<'_> {
    fn drop(&mut self) {
        self.0.current.clear();
    }
}
