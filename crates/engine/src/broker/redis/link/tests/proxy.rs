//! A way to Redis that swallows or holds back what goes through it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// What happens to what comes in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// It is thrown away.
    Swallowing,
    /// It waits, and so does the end of the connection.
    Holding,
    /// Both sides have ended the connection.
    Ended,
}

/// A connection through the proxy.
struct Passage {
    is_for_commands: bool,
    way: Mutex<Way>,
    has_changed: Condvar,
}

impl Passage {
    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().expect("nobody panics with it")
    }

    fn set_way(&self, way: Way) {
        *self.way() = way;
        self.has_changed.notify_all();
    }

    fn wait_while(&self, is_waited_for: impl Fn(Way) -> bool) -> Way {
        *self.has_changed.wait_while(self.way(), |way| is_waited_for(*way)).expect("nobody panics with it")
    }
}

/// See the module documentation.
pub(super) struct Proxy {
    port: u16,
    passages: Arc<Mutex<Vec<Arc<Passage>>>>,
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

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on swallows what comes in either direction, on the connections for commands or on the others.
    pub(super) fn swallow(&self, for_commands: bool) {
        self.passages(for_commands).iter().for_each(|passage| passage.set_way(Way::Swallowing));
    }

    /// From now on holds it back. Redis does not see that such a connection ends, either.
    pub(super) fn hold(&self, for_commands: bool) {
        self.passages(for_commands).iter().for_each(|passage| passage.set_way(Way::Holding));
    }

    /// Passes on what was held back on connections that were lost meanwhile, and waits until Redis has closed them.
    pub(super) fn release(&self, for_commands: bool) {
        for passage in self.passages(for_commands) {
            if *passage.way() == Way::Holding {
                passage.set_way(Way::Open);
                passage.wait_while(|way| way != Way::Ended);
            }
        }
    }

    fn passages(&self, for_commands: bool) -> Vec<Arc<Passage>> {
        let passages = self.passages.lock().expect("nobody panics with it");
        passages.iter().filter(|passage| passage.is_for_commands == for_commands).cloned().collect()
    }
}

fn pass_on(client: &TcpStream, server: &TcpStream, passages: &Mutex<Vec<Arc<Passage>>>) {
    let mut greeting = vec![0; 64 * 1024];
    let Ok(count) = (&*client).read(&mut greeting) else { return };
    greeting.truncate(count);
    if (&*server).write_all(&greeting).is_err() {
        return;
    }
    let is_for_commands = greeting.windows(15).any(|word| word == b"hubbub-commands");
    let passage = Arc::new(Passage { is_for_commands, way: Mutex::new(Way::Open), has_changed: Condvar::new() });
    passages.lock().expect("nobody panics with it").push(Arc::clone(&passage));
    std::thread::scope(|scope| {
        scope.spawn(|| copy(server, client, &passage));
        copy(client, server, &passage);
    });
    passage.set_way(Way::Ended);
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, passage: &Passage) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if passage.wait_while(|way| way == Way::Holding) == Way::Open {
            // If the other side no longer reads, it may still have sent something.
            let _ = to.write_all(&buffer[..count]);
        }
    }
    passage.wait_while(|way| way == Way::Holding);
    let _ = to.shutdown(Shutdown::Write);
}
