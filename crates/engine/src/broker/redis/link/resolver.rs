//! Looks up the addresses of hosts. The system's function for it may take half a minute, so each look-up has a thread.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::desk::Desk;
use crate::redis_address::Host;

/// Look-ups at a time. Those that their asker has given up go on until the system does.
const MAX_AT_A_TIME: usize = 4;

type Found = Result<Vec<SocketAddr>, String>;

/// A look-up: what for, and what was found, unless it still goes on.
type Lookup = (Host, Option<Found>);

/// See the module documentation.
#[derive(Clone)]
pub(super) struct Resolver {
    desk: Arc<Desk>,
    lookups: Arc<Mutex<Vec<Lookup>>>,
}

impl Resolver {
    /// The thread is called when something is found.
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self { desk, lookups: Arc::default() }
    }

    /// The addresses of a host; `None` if they are being looked up.
    pub(super) fn find(&self, host: &Host) -> Option<Found> {
        if let Ok(address) = host.name.parse::<IpAddr>() {
            return Some(Ok(vec![SocketAddr::new(address, host.port)]));
        }
        let mut lookups = self.lookups();
        if let Some(index) = lookups.iter().position(|(asked, _)| asked == host) {
            let found = lookups[index].1.take();
            if found.is_some() {
                lookups.swap_remove(index);
            }
            return found;
        }
        if lookups.len() >= MAX_AT_A_TIME {
            lookups.retain(|(_, found)| found.is_none());
            if lookups.len() >= MAX_AT_A_TIME {
                return Some(Err("the name servers do not answer".into()));
            }
        }
        let (this, asked) = (self.clone(), host.clone());
        match std::thread::Builder::new().name("hubbub-names".into()).spawn(move || this.look_up(&asked)) {
            Ok(_) => lookups.push((host.clone(), None)),
            Err(error) => return Some(Err(format!("there is no thread to look it up: {error}"))),
        }
        None
    }

    fn look_up(&self, host: &Host) {
        let found = (host.name.as_str(), host.port).to_socket_addrs();
        let found = found.map(Iterator::collect).map_err(|error: io::Error| in_words(&error));
        if let Some(lookup) = self.lookups().iter_mut().find(|(asked, found)| asked == host && found.is_none()) {
            lookup.1 = Some(found);
        }
        self.desk.call_thread();
    }

    fn lookups(&self) -> MutexGuard<'_, Vec<Lookup>> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What Rust adds before the system's words says nothing to people.
fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").map_or(text.clone(), str::to_owned)
}
