//! The limit: what the kernel alone costs. An epoll loop that echoes and fans out with just enough
//! WebSocket for the load generator, and none of the checks, limits or time-outs of a real server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use benchmarks::client::ACCEPT;
use benchmarks::connection::{Connection, READ_BUFFER};
use benchmarks::frame;
use benchmarks::limits;
use benchmarks::poller::Poller;
use clap::{Parser, ValueEnum};

/// A bare epoll loop with just enough WebSocket for the load generator. Prints its port.
#[derive(Parser)]
struct Arguments {
    /// What to do with a message
    #[arg(long, default_value = "echo")]
    workload: Workload,
    /// The port on 127.0.0.1; 0 for any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Send it back
    Echo,
    /// Send it to all connections to `/fanout`
    #[value(alias = "broadcast")]
    Fanout,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    limits::raise_open_files()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port))?;
    println!("{}", listener.local_addr()?.port());
    Server::new(listener, arguments.workload)?.run()
}

struct Server {
    listener: TcpListener,
    poller: Poller,
    workload: Workload,
    /// By file descriptor, which is also the connection's token.
    peers: Vec<Option<Peer>>,
    subscribers: Vec<usize>,
    /// Frames for all subscribers, written once at the end of a turn.
    published: Vec<u8>,
    /// Frames for the current connection.
    echoes: Vec<u8>,
    buffer: Vec<u8>,
    /// The answer to every handshake.
    upgraded: String,
}

enum Peer {
    Handshake(TcpStream),
    Open(Connection),
}

impl Server {
    fn new(listener: TcpListener, workload: Workload) -> io::Result<Self> {
        let poller = Poller::new()?;
        listener.set_nonblocking(true)?;
        poller.add(&listener, listener.as_raw_fd() as usize)?;
        Ok(Self {
            listener,
            poller,
            workload,
            peers: Vec::new(),
            subscribers: Vec::new(),
            published: Vec::new(),
            echoes: Vec::new(),
            buffer: vec![0; READ_BUFFER],
            upgraded: format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
            ),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            for index in 0..self.poller.wait(None)? {
                let (token, writable) = self.poller.ready(index);
                if token == self.listener.as_raw_fd() as usize {
                    self.accept()?;
                } else {
                    self.serve(token, writable);
                }
            }
            self.publish();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let token = stream.as_raw_fd() as usize;
                    self.poller.add(&stream, token)?;
                    if token >= self.peers.len() {
                        self.peers.resize_with(token + 1, || None);
                    }
                    self.peers[token] = Some(Peer::Handshake(stream));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the input of one connection. Any error ends the connection: the load generator will report it.
    fn serve(&mut self, token: usize, writable: bool) {
        self.peers[token] = match self.peers[token].take() {
            Some(Peer::Handshake(stream)) => self.upgrade(stream, token).ok(),
            Some(Peer::Open(connection)) => self.exchange(connection, writable).ok(),
            None => None,
        };
        if self.peers[token].is_none() {
            self.subscribers.retain(|subscriber| *subscriber != token);
        }
    }

    /// Answers a request, which is assumed to arrive in one piece and to have the load generator's key.
    fn upgrade(&mut self, mut stream: TcpStream, token: usize) -> io::Result<Peer> {
        let length = stream.read(&mut self.buffer)?;
        if self.buffer[..length].starts_with(b"GET /fanout ") {
            self.subscribers.push(token);
        }
        stream.write_all(self.upgraded.as_bytes())?;
        Ok(Peer::Open(Connection::new(stream, token)?))
    }

    fn exchange(&mut self, mut connection: Connection, writable: bool) -> io::Result<Peer> {
        if writable {
            connection.flush(&self.poller)?;
        }
        self.echoes.clear();
        let echoes = &mut self.echoes;
        let published = &mut self.published;
        let mut closed = false;
        connection.read(&mut self.buffer, |frame| {
            closed |= frame.opcode == frame::CLOSE;
            match self.workload {
                Workload::Fanout if !closed => frame::append_unmasked(published, frame),
                _ => frame::append_unmasked(echoes, frame),
            }
            Ok(())
        })?;
        connection.send(echoes, &self.poller)?;
        if closed { Err(ErrorKind::ConnectionAborted.into()) } else { Ok(Peer::Open(connection)) }
    }

    fn publish(&mut self) {
        if self.published.is_empty() {
            return;
        }
        for token in &self.subscribers {
            if let Some(Peer::Open(connection)) = &mut self.peers[*token] {
                // A lost subscriber is noticed when it is read.
                let _ = connection.send(&self.published, &self.poller);
            }
        }
        self.published.clear();
    }
}
