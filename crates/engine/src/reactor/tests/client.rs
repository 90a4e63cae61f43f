//! The client's end of a connection. It writes and reads only when the test says so, and checks what it reads with a
//! parser of its own.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use wire::deflate::{Deflater, Inflater};
use wire::frame::Opcode;

pub(super) const HANDSHAKE: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The same, and the client can inflate.
pub(super) const HANDSHAKE_WITH_DEFLATE: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

// They are costly to create.
thread_local! {
    static INFLATER: RefCell<Inflater> = RefCell::new(Inflater::new());
    static DEFLATER: RefCell<Deflater> = RefCell::new(Deflater::new());
}

/// What a WebSocket client has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

/// How the server's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Reset,
}

pub(super) struct Client {
    /// `None` once the client has closed it.
    stream: Option<TcpStream>,
    /// Output that the socket has not accepted.
    unsent: Vec<u8>,
    /// Input that has not been parsed: an HTTP answer, or part of a frame.
    input: Vec<u8>,
    is_websocket: bool,
    /// Whether messages may be compressed.
    pub(super) inflates: bool,
    /// The opcode of the unfinished message, and its payload so far.
    unfinished: Option<(u8, Vec<u8>)>,
    pub(super) received: Vec<Received>,
    pub(super) end: Option<End>,
}

impl Client {
    /// `stream` must be non-blocking.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream: Some(stream),
            unsent: Vec::new(),
            input: Vec::new(),
            is_websocket: false,
            inflates: false,
            unfinished: None,
            received: Vec::new(),
            end: None,
        }
    }

    // ---- writing ----------------------------------------------------------------------------------------------------

    /// Writes these bytes, the rest of them later if the socket is full.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
        self.flush(usize::MAX);
    }

    /// Queues these bytes without writing any.
    pub(super) fn queue(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Writes up to `most` queued bytes.
    pub(super) fn flush(&mut self, most: usize) {
        let Some(stream) = &mut self.stream else { return };
        let mut left = most.min(self.unsent.len());
        while left > 0 {
            match stream.write(&self.unsent[..left]) {
                Ok(count) => {
                    self.unsent.drain(..count);
                    left -= count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The server has closed the connection.
                Err(_) => {
                    self.unsent.clear();
                    return;
                }
            }
        }
    }

    /// Whether everything has been written.
    pub(super) fn has_written(&self) -> bool {
        self.unsent.is_empty()
    }

    pub(super) fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        self.write(&frame(opcode, true, payload));
    }

    pub(super) fn text(&mut self, text: &str) {
        self.send(Opcode::Text, text.as_bytes());
    }

    pub(super) fn close(&mut self, code: u16) {
        self.send(Opcode::Close, &code.to_be_bytes());
    }

    /// Ends the client's stream, but not the server's.
    pub(super) fn end_output(&mut self) {
        if let Some(stream) = &self.stream {
            // The server may have closed the connection.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// Closes the socket. The server's stream is reset if some of it has not been read.
    pub(super) fn leave(&mut self) {
        self.stream = None;
        self.unsent.clear();
    }

    /// Closes the socket with a reset.
    pub(super) fn reset(&mut self) {
        if let Some(stream) = &self.stream {
            rustix::net::sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO)).expect("an option");
        }
        self.leave();
    }

    pub(super) fn has_left(&self) -> bool {
        self.stream.is_none()
    }

    // ---- reading ----------------------------------------------------------------------------------------------------

    /// Reads everything that has arrived.
    pub(super) fn read(&mut self) {
        while self.read_some(65_536) > 0 {}
    }

    /// Reads up to `most` bytes. Returns how many there were.
    pub(super) fn read_some(&mut self, most: usize) -> usize {
        let Some(stream) = self.stream.as_mut().filter(|_| self.end.is_none()) else { return 0 };
        let mut bytes = vec![0; most];
        let count = match stream.read(&mut bytes) {
            Ok(0) if most > 0 => {
                self.end = Some(End::Closed);
                0
            }
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                self.end = Some(End::Reset);
                0
            }
        };
        self.input.extend_from_slice(&bytes[..count]);
        self.parse();
        count
    }

    /// The HTTP answers so far.
    pub(super) fn answers(&self) -> &str {
        assert!(!self.is_websocket);
        str::from_utf8(&self.input).expect("text")
    }

    /// The status of the last HTTP answer; `None` if there is none.
    pub(super) fn status(&self) -> Option<u16> {
        let (_, last) = self.answers().rsplit_once("HTTP/1.1 ")?;
        Some(last[..3].parse().expect("a status"))
    }

    /// Our Close frame's code; `None` if none has arrived. 1005 stands for a frame without a code.
    pub(super) fn close_code(&self) -> Option<u16> {
        match self.received.last() {
            Some(Received::Close(code, _)) => Some(code.unwrap_or(1005)),
            _ => None,
        }
    }

    /// The text messages received.
    pub(super) fn texts(&self) -> Vec<&str> {
        let texts = self.received.iter().filter_map(|each| match each {
            Received::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// Whether the stream ended in the middle of a frame.
    pub(super) fn is_cut(&self) -> bool {
        self.end.is_some() && self.is_websocket && !self.input.is_empty()
    }

    fn parse(&mut self) {
        if !self.is_websocket {
            let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") else { return };
            if !self.input.starts_with(b"HTTP/1.1 101 ") {
                return;
            }
            let head: Vec<u8> = self.input.drain(..end + 4).collect();
            self.inflates = text(head).contains("permessage-deflate");
            self.is_websocket = true;
        }
        while let Some((header, length)) = frame_length(&self.input)
            && self.input.len() >= header + length
        {
            let first = self.input[0];
            let payload = self.input[header..header + length].to_vec();
            self.input.drain(..header + length);
            self.receive(first, payload);
        }
    }

    fn receive(&mut self, first: u8, payload: Vec<u8>) {
        assert!(!matches!(self.received.last(), Some(Received::Close(..))), "a frame follows the Close frame");
        let (reserved, is_compressed) = (first & 0x30, first & 0x40 != 0);
        assert!(reserved == 0 && (!is_compressed || self.inflates), "reserved bits");
        let is_last = first & 0x80 != 0;
        let opcode = first & 0x0f;
        if opcode >= 8 {
            assert!(is_last && !is_compressed && payload.len() <= 125, "a control frame is whole and short");
            self.received.push(match opcode {
                8 => {
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    Received::Close(code, text(payload[payload.len().min(2)..].to_vec()))
                }
                9 => Received::Ping(payload),
                10 => Received::Pong(payload),
                _ => panic!("opcode {opcode}"),
            });
            return;
        }
        assert_eq!(
            opcode == 0,
            self.unfinished.is_some(),
            "a fragment follows its message's beginning, and nothing else"
        );
        let payload = if is_compressed {
            assert!(is_last && opcode != 0, "only whole messages are compressed here");
            let mut inflated = Vec::new();
            let done = INFLATER.with_borrow_mut(|inflater| inflater.inflate(&payload, usize::MAX, &mut inflated));
            done.expect("a deflate stream");
            inflated
        } else {
            payload
        };
        let (opcode, mut whole) = self.unfinished.take().unwrap_or((opcode, Vec::new()));
        whole.extend_from_slice(&payload);
        if !is_last {
            self.unfinished = Some((opcode, whole));
            return;
        }
        self.received.push(match opcode {
            1 => Received::Text(text(whole)),
            2 => Received::Binary(whole),
            _ => panic!("opcode {opcode}"),
        });
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

/// The lengths of the header and the payload of the server's frame at the front of `input`; `None` if the header has
/// not arrived.
fn frame_length(input: &[u8]) -> Option<(usize, usize)> {
    let length = *input.get(1)?;
    assert!(length < 0x80, "a server does not mask");
    Some(match length {
        126 => {
            let length = u16::from_be_bytes(*input.get(2..)?.first_chunk()?);
            assert!(length > 125, "the shortest form");
            (4, length.into())
        }
        127 => {
            let length = u64::from_be_bytes(*input.get(2..)?.first_chunk()?);
            assert!(length > u16::MAX.into(), "the shortest form");
            (10, length as usize)
        }
        short => (2, short.into()),
    })
}

/// A client's frame.
pub(super) fn frame(opcode: Opcode, is_last: bool, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![opcode as u8 | if is_last { 0x80 } else { 0 }];
    match payload.len() {
        short @ ..126 => bytes.push(0x80 | short as u8),
        middle @ ..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend((middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A client's frame that is a whole message, compressed.
pub(super) fn compressed_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut deflated = Vec::new();
    DEFLATER.with_borrow_mut(|deflater| deflater.deflate(payload, 15, &mut deflated));
    let mut bytes = frame(opcode, true, &deflated);
    bytes[0] |= 0x40;
    bytes
}
