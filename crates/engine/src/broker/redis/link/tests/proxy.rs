//! A way to Redis that can be cut, or swallow what goes through it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A connection through the proxy.
pub(super) struct Passage {
    /// What was sent to Redis at first.
    greeting: Vec<u8>,
    swallows: Arc<AtomicBool>,
}

impl Passage {
    /// Whether commands go through it: only there, the server's id is asked for.
    fn is_for_commands(&self) -> bool {
        self.greeting.windows(4).any(|word| word == b"INFO")
    }
}

/// See the module documentation.
pub(super) struct Proxy {
    pub(super) port: u16,
    passages: Arc<Mutex<Vec<Passage>>>,
}

impl Proxy {
    /// Leads to this port. Its threads end with the process.
    pub(super) fn new(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let passages = Arc::new(Mutex::new(Vec::new()));
        let this = Self { port, passages: Arc::clone(&passages) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let passages = Arc::clone(&passages);
                std::thread::spawn(move || pass_on(&stream, &server, &passages));
            }
        });
        this
    }

    /// From now on swallows what comes in either direction, on the connections for commands or on the others.
    pub(super) fn swallow(&self, for_commands: bool) {
        for passage in self.passages.lock().expect("it is there").iter() {
            if passage.is_for_commands() == for_commands {
                passage.swallows.store(true, Ordering::SeqCst);
            }
        }
    }
}

fn pass_on(client: &TcpStream, server: &TcpStream, passages: &Mutex<Vec<Passage>>) {
    let mut greeting = vec![0; 64 * 1024];
    let Ok(count) = (&*client).read(&mut greeting) else { return };
    greeting.truncate(count);
    if (&*server).write_all(&greeting).is_err() {
        return;
    }
    let swallows = Arc::new(AtomicBool::new(false));
    passages.lock().expect("it is there").push(Passage { greeting, swallows: Arc::clone(&swallows) });
    std::thread::scope(|scope| {
        scope.spawn(|| copy(server, client, &swallows));
        copy(client, server, &swallows);
    });
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, swallows: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !swallows.load(Ordering::SeqCst) && to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
