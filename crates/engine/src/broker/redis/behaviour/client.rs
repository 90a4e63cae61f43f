//! A client of Redis that asks one thing at a time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use super::super::scripts::Script;

/// See the module documentation.
pub(super) struct Client(BufReader<TcpStream>);

/// A reply, or something else that Redis sends.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Nothing,
    Number(i64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Error(String),
}

impl Value {
    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number as u64,
            other => panic!("no number: {other:?}"),
        }
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.list().iter().map(Self::number).collect()
    }

    pub(super) fn list(&self) -> &[Self] {
        match self {
            Self::List(list) => list,
            other => panic!("no list: {other:?}"),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            other => panic!("no bytes: {other:?}"),
        }
    }

    pub(super) fn text(&self) -> &str {
        str::from_utf8(self.bytes()).expect("text")
    }
}

impl Client {
    pub(super) fn new(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_nodelay(true).expect("set");
        Self(BufReader::new(stream))
    }

    pub(super) fn ask(&mut self, parts: &[&[u8]]) -> Value {
        let mut command = format!("*{}\r\n", parts.len()).into_bytes();
        for part in parts {
            command.extend(format!("${}\r\n", part.len()).as_bytes());
            command.extend_from_slice(part);
            command.extend(b"\r\n");
        }
        self.0.get_mut().write_all(&command).expect("written");
        self.read()
    }

    pub(super) fn say(&mut self, words: &str) -> Value {
        let parts: Vec<_> = words.split(' ').map(str::as_bytes).collect();
        self.ask(&parts)
    }

    pub(super) fn call(&mut self, script: Script, keys: &[&str], arguments: &[&[u8]]) -> Value {
        let count = keys.len().to_string();
        let keys: Vec<_> = keys.iter().map(|key| key.as_bytes()).collect();
        self.ask(&[&[b"EVAL", script.text().as_bytes(), count.as_bytes()], &keys[..], arguments].concat())
    }

    /// What Redis sends next.
    pub(super) fn read(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        let (kind, rest) = line.trim_end().split_at(1);
        let number = || rest.parse::<i64>().expect("a number");
        match kind {
            "+" => Value::Bytes(rest.into()),
            "-" => Value::Error(rest.into()),
            ":" => Value::Number(number()),
            "$" if number() < 0 => Value::Nothing,
            "$" => {
                let mut bytes = vec![0; number() as usize + 2];
                self.0.read_exact(&mut bytes).expect("bytes");
                bytes.truncate(bytes.len() - 2);
                Value::Bytes(bytes)
            }
            "*" => Value::List((0..number()).map(|_| self.read()).collect()),
            other => panic!("unknown reply {other:?}"),
        }
    }
}
