//! Endpoints: paths with handlers and settings of their own. The choice is made once for each request, by its path.

use wire::http::Head;
use wire::origin::OriginPolicy;
use wire::path::{Path, Pattern};

/// Which endpoint serves a connection. The number means something in this process only: another one may have loaded
/// other code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointId(u32);

impl EndpointId {
    /// The server itself, which serves the paths that no endpoint matches.
    pub const SERVER: Self = Self(0);

    /// 0 for the server itself, and from 1 on the endpoints in their order.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Whether WebSockets are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebSockets {
    /// A handshake is passed on, if its origin is permitted and there is room.
    #[default]
    Served,
    /// A handshake gets a 404.
    NotFound,
}

/// How the bodies of requests are passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bodies {
    /// A request is passed on once its whole body has arrived.
    #[default]
    Whole,
    /// A request is passed on with its head; the application takes the body as it arrives.
    Streamed,
}

/// One endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The paths that it serves, as far as no earlier endpoint does.
    pub pattern: Pattern,
    /// Whether it serves WebSockets.
    pub websockets: WebSockets,
    /// Which pages may connect from a browser.
    pub origins: OriginPolicy,
    /// In the server's order of preference.
    pub subprotocols: Vec<String>,
    /// Size of one message, as in [`crate::Settings`].
    pub max_message_size: usize,
}

/// All endpoints of a server.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// In the order in which they are tried.
    pub list: Vec<Endpoint>,
    /// Whether the server itself serves WebSockets, at all other paths.
    pub others: WebSockets,
    /// How requests for these paths are passed on. Endpoints get them whole.
    pub bodies: Bodies,
}

impl Endpoints {
    /// The first endpoint that matches a request.
    pub(crate) fn find(&self, head: &Head) -> EndpointId {
        if self.list.is_empty() {
            return EndpointId::SERVER;
        }
        let path = Path::of(head);
        let found = path.and_then(|path| self.list.iter().position(|endpoint| endpoint.pattern.matches(&path)));
        found.map_or(EndpointId::SERVER, |index| EndpointId(index as u32 + 1))
    }

    /// The endpoint with this id; `None` for the server itself.
    pub(crate) fn get(&self, id: EndpointId) -> Option<&Endpoint> {
        self.list.get(id.index().checked_sub(1)?)
    }

    pub(crate) fn bodies(&self, id: EndpointId) -> Bodies {
        if id == EndpointId::SERVER { self.bodies } else { Bodies::Whole }
    }

    pub(crate) fn websockets(&self, id: EndpointId) -> WebSockets {
        self.get(id).map_or(self.others, |endpoint| endpoint.websockets)
    }
}
