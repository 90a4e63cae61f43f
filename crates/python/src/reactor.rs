//! The reactor's Python class.
//!
//! Only the event loop's thread uses the engine's reactor, and never while Python runs: it is borrowed for single
//! steps. Calls from other threads go through [`Shared`] as commands.

use std::collections::HashMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use engine::{
    Answer, Bodies, Borrow, Command, DataOpcode, EndpointId, Fd, Fin, LoopCell, MemberEvent, Mine, Ownership, Part,
    PushError, Question, Registry, Requests, Sending, Shared, Stuck, Subscribed, Token, TopicRules, Watching,
};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};
use pyo3::{IntoPyObjectExt, ffi, intern};
use wire::http::Head;
use wire::path;

use crate::addresses::Addresses;
use crate::application::{Application, no_application};
use crate::arguments::{
    After, CodeArgument, Data, FdArgument, FinishArgument, MessageKey, OpcodeArgument, PlainData, PositionArgument,
    Prefix, Reason, SENDABLE, Topic, check_close, check_enveloped, check_ping, excluded, not_utf8, wrong_type,
};
use crate::bodies::kept;
use crate::borrowing::{borrow, in_use, of_another_thread};
use crate::endpoints::PathPattern;
use crate::everywhere;
use crate::fork::{is_forked, note_fork};
use crate::handlers::Handler;
use crate::header_pairs::HeaderPairs;
use crate::home::Home;
use crate::ids::Ids;
use crate::runner::{Runner, SharedTasks};
use crate::selector::Selector;
use crate::stopwatch::Stopwatch;
use crate::topics::OptionsArgument;
use crate::values::{
    everywhere_tuple, history_tuple, host_tuples, info_tuple, joined_tuple, metrics_dict, page_tuple, silent_host,
    stats_dict,
};

/// Why the body of an answer is wrong.
pub(crate) const TOO_LONG: &str = "the body is longer than its Content-Length";
pub(crate) const TOO_SHORT: &str = "the body is shorter than its Content-Length";

/// The handlers that are called from here. The others are called by the worker, and so are those of requests that it has
/// to see first.
#[derive(Default)]
pub(crate) struct Handlers {
    pub(crate) open: OnceLock<Handler>,
    pub(crate) message: OnceLock<Handler>,
    pub(crate) close: OnceLock<Handler>,
    pub(crate) drain: OnceLock<Handler>,
    pub(crate) request: OnceLock<Handler>,
}

/// The id of the connection whose message is being handled, as the object that its handler is given: most handlers push
/// to that connection, and then the object need not be converted to a number.
#[derive(Default)]
pub(crate) struct CurrentId {
    object: AtomicPtr<ffi::PyObject>,
    fd: AtomicU64,
}

impl CurrentId {
    /// Sets it. The object must stay alive until another one is set, or this is cleared.
    #[inline]
    pub(crate) fn set(&self, object: &Bound<'_, PyInt>, fd: Fd) {
        self.fd.store(fd, Ordering::Relaxed);
        self.object.store(object.as_ptr(), Ordering::Relaxed);
    }

    pub(crate) fn clear(&self) {
        self.object.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// The id, if that is the object.
    #[inline]
    pub(crate) fn fd_of(&self, object: *mut ffi::PyObject) -> Option<Fd> {
        (self.object.load(Ordering::Relaxed) == object).then(|| self.fd.load(Ordering::Relaxed))
    }
}

/// All sockets of one worker, driven in turns by its event loop.
///
/// Created in the event loop's thread, which is the only one that may call anything here except the methods that send
/// or look up.
///
/// Args:
///     server: The object that handlers are given as `server`.
///     worker: Does what has to be done in Python; see `hubbub.worker.Worker`.
///     settings: A `hubbub.Settings`.
///     endpoints: In the order in which they are tried: the pattern of each, its `Settings`, whether it serves WebSockets.
///     others: Whether WebSockets are served at all other paths.
///     max_memory: Bytes that its connections may hold together.
///     topics: The options of topics; see `OptionsArgument`.
///     slot: This process's part of the connection ids, 0 to 127.
///     link: The descriptor of its link to the hub, handed over; `None` if there are no other processes.
///     registry: The descriptor of the server's registry, handed over; `None` if this process has its own.
///     has_application: Whether `serve_application` will be called.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct Reactor {
    engine: LoopCell<engine::Reactor>,
    ids: LoopCell<Ids>,
    shared: Arc<Shared>,
    /// Those of the server, and then those of each endpoint.
    handlers: Vec<Handlers>,
    /// Of the paths of the endpoints.
    patterns: Vec<Py<PathPattern>>,
    /// Whether connections use TLS.
    pub(crate) is_encrypted: bool,
    /// The `hubbub.jsons.Json` of the server.
    pub(crate) json: Py<PyAny>,
    /// The worker answers requests for this path; `None` if there is none.
    health_path: Option<String>,
    /// Whether the worker has to see all requests first, because it is stopping.
    is_stopping: AtomicBool,
    pub(crate) runner: Runner,
    pub(crate) server: Py<PyAny>,
    pub(crate) home: Py<Home>,
    send_queue_size: usize,
    topics: TopicRules,
    /// The connection whose message is being handled.
    pub(crate) current: CurrentId,
    in_turn: AtomicBool,
    /// Whether a turn is already scheduled with the event loop.
    scheduled: AtomicBool,
    /// Set if the event loop calls `select` here instead of its selector's.
    selector: OnceLock<Selector>,
    /// The origin of `armed`.
    started: Instant,
    /// When the event loop's timer for the next deadline fires, in milliseconds since `started`; `u64::MAX` if there is
    /// none.
    armed: AtomicU64,
    /// The ASGI application that serves all paths without an endpoint, once it has started.
    application: OnceLock<Application>,
    addresses: LoopCell<Addresses>,
    /// The callbacks for answers, by the question's number.
    questions: Mutex<HashMap<u64, Py<PyAny>>>,
    last_question: AtomicU64,
}

impl Reactor {
    /// The handlers of an endpoint, or of the server.
    #[inline]
    pub(crate) fn handlers(&self, endpoint: EndpointId) -> &Handlers {
        &self.handlers[endpoint.index()]
    }

    /// The pattern of the path of an endpoint; the server itself has none.
    pub(crate) fn pattern(&self, endpoint: EndpointId) -> Option<&Py<PathPattern>> {
        self.patterns.get(endpoint.index().checked_sub(1)?)
    }

    /// Whether a request is for the path that tells how this server is.
    pub(crate) fn asks_for_health(&self, head: &Head) -> bool {
        self.health_path.as_ref().is_some_and(|health| path::decoded(head.path_and_query().0) == *health)
    }

    /// Whether the worker has to see all requests first.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// The ASGI application, if it serves this endpoint.
    pub(crate) fn application_of(&self, endpoint: EndpointId) -> Option<&Application> {
        self.application().filter(|_| endpoint == EndpointId::SERVER)
    }

    /// An address as a `str`.
    pub(crate) fn address<'py>(&self, py: Python<'py>, ip: IpAddr) -> PyResult<Bound<'py, PyString>> {
        Ok(borrow(&self.addresses)?.get(py, ip))
    }

    /// The ASGI application, if it has started.
    pub(crate) fn application(&self) -> Option<&Application> {
        self.application.get()
    }

    /// The right to borrow the engine, on the event loop's thread.
    ///
    /// # Errors
    /// RuntimeError on any other thread.
    #[inline]
    pub(crate) fn mine(&self) -> PyResult<Mine<'_, engine::Reactor>> {
        self.engine.mine().ok_or_else(of_another_thread)
    }

    /// The engine, for reading or within a turn. Changes outside of turns go through `on_loop`.
    #[inline]
    pub(crate) fn engine(&self) -> PyResult<Borrow<'_, engine::Reactor>> {
        self.mine()?.borrow().map_err(in_use)
    }

    /// An id as a Python object, on the event loop's thread.
    #[inline(always)]
    pub(crate) fn id<'py>(&self, py: Python<'py>, fd: Fd) -> PyResult<Bound<'py, PyInt>> {
        Ok(borrow(&self.ids)?.get(py, fd))
    }

    /// Does one thing on the event loop's thread, and makes sure that what it queued is written, and that the event
    /// loop's timer takes the deadlines it set into account.
    #[inline]
    pub(crate) fn on_loop<T>(&self, py: Python<'_>, act: impl FnOnce(&mut engine::Reactor) -> T) -> PyResult<T> {
        self.on_own_loop(py, self.mine()?, act)
    }

    /// Like `on_loop`, for callers that know that this is the event loop's thread.
    #[inline]
    fn on_own_loop<T>(
        &self,
        py: Python<'_>,
        mine: Mine<'_, engine::Reactor>,
        act: impl FnOnce(&mut engine::Reactor) -> T,
    ) -> PyResult<T> {
        let mut engine = mine.borrow().map_err(in_use)?;
        let result = act(&mut engine);
        let is_idle = !self.in_turn.load(Ordering::Relaxed) && !self.scheduled.load(Ordering::Relaxed);
        if is_idle && (engine.has_work() || engine.has_earlier_deadline()) {
            drop(engine);
            self.schedule(py)?;
        }
        Ok(result)
    }

    /// The longest message that can be sent.
    pub(crate) fn send_queue_size(&self) -> usize {
        self.send_queue_size
    }

    /// What is sent of an argument.
    #[inline]
    fn data<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Data<'py>> {
        match Data::of(value) {
            Some(data) => Ok(data),
            None if value.is_instance_of::<PyDict>() || value.is_instance_of::<PyList>() => {
                Ok(Data::Text(self.home.get().encode(value)?))
            }
            None => Data::of_buffer(value, SENDABLE),
        }
    }

    /// Has the event loop run one turn soon.
    fn schedule(&self, py: Python<'_>) -> PyResult<()> {
        // A selector sees it before it waits.
        if !self.scheduled.swap(true, Ordering::Relaxed) && self.selector.get().is_none() {
            self.runner.worker.bind(py).call_method0(intern!(py, "schedule_turn"))?;
        }
        Ok(())
    }

    /// Queues a whole message, within a turn on the event loop's thread. `None`: it is not there, or the payload is too
    /// long, or no valid text; nothing was queued.
    #[inline]
    pub(crate) fn push_in_turn(&self, fd: Fd, opcode: DataOpcode, payload: &[u8]) -> Option<bool> {
        if !self.is_in_turn() || payload.len() > self.send_queue_size {
            return None;
        }
        self.engine.mine()?.borrow().ok()?.push(fd, opcode, Fin::Last, payload).ok()
    }

    /// Whether a turn is scheduled, which from here on it is no longer.
    pub(crate) fn take_schedule(&self) -> bool {
        self.scheduled.swap(false, Ordering::Relaxed)
    }

    /// Whether a turn is running, and has called the caller.
    pub(crate) fn is_in_turn(&self) -> bool {
        self.in_turn.load(Ordering::Relaxed)
    }

    /// Runs one turn, unless one is running.
    pub(crate) fn turn_now(&self, py: Python<'_>) -> PyResult<()> {
        if self.in_turn.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let turn = EndOfTurn { in_turn: &self.in_turn };
        let result = self.run_turn(py);
        // Whatever a handler raised, this turn's writes are sent.
        let finished = self.engine().map(|mut engine| engine.finish());
        drop(turn);
        self.look_ahead(py)?;
        result.and(finished)
    }

    /// In a forked child, ends it: the event loop and the reactor are its parent's.
    pub(crate) fn end_if_forked(&self, py: Python<'_>) -> PyResult<()> {
        if is_forked() {
            self.runner.worker.bind(py).call_method0(intern!(py, "end_child"))?;
        }
        Ok(())
    }

    /// Does something with an open connection: at once on the loop's thread, or as a command from other threads.
    fn command(
        &self,
        py: Python<'_>,
        fd: Fd,
        act: impl FnOnce(&mut engine::Reactor) -> bool,
        command: Command<'_>,
    ) -> PyResult<bool> {
        if let Some(mine) = self.engine.mine() {
            return self.on_own_loop(py, mine, act);
        }
        Ok(self.shared.registry.exists(fd) && self.shared.command(command))
    }

    /// Puts a question to all processes; in a turn, `callback` is given the answer, or `None` and the ids of the
    /// workers that have not answered in time. If it is given no ids either, too many such questions are waiting.
    /// Returns the question's number.
    fn ask_all(&self, py: Python<'_>, question: &Question<'_>, callback: Py<PyAny>) -> PyResult<u64> {
        let number = self.keep_callback(callback);
        self.on_loop(py, |engine| engine.ask(number, question))?;
        Ok(number)
    }

    /// Keeps the callback for the answer to a question, and returns the question's number.
    fn keep_callback(&self, callback: Py<PyAny>) -> u64 {
        let number = self.last_question.fetch_add(1, Ordering::Relaxed) + 1;
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).insert(number, callback);
        number
    }

    /// Delivers an answer to the callback that waits for it.
    pub(crate) fn answered(&self, py: Python<'_>, number: u64, answer: Answer) -> PyResult<()> {
        // The caller may have given up.
        let callback = self.questions.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        let Some(callback) = callback else { return Ok(()) };
        let mut silent: Vec<u32> = Vec::new();
        let value = match answer {
            Answer::Count(count) => Some(count.into_bound_py_any(py)?),
            Answer::Topics(page) => Some(page_tuple(py, page)?),
            Answer::Members(page) => Some(page_tuple(py, page)?),
            Answer::History(history) => Some(history_tuple(py, &history)?),
            Answer::Presence(page) => Some(page_tuple(py, page)?),
            Answer::Joined(joined) => Some(joined_tuple(py, joined)?),
            Answer::Done(done) => Some(done.into_bound_py_any(py)?),
            Answer::Everywhere { answers, silent } => Some(everywhere_tuple(py, answers, silent)?),
            Answer::SilentHost(host) => Some(silent_host(host).into_value(py).into_bound(py).into_any()),
            Answer::Silent(workers) => {
                silent.extend(workers.into_iter().map(u32::from));
                None
            }
            _ => None,
        };
        callback.call1(py, (value, silent)).map(|_| ())
    }

    /// Schedules what follows a turn: another one, or the event loop's timer.
    fn look_ahead(&self, py: Python<'_>) -> PyResult<()> {
        let (has_work, deadline) = {
            let mut engine = self.engine()?;
            (engine.has_work(), engine.next_deadline())
        };
        if has_work {
            self.schedule(py)?;
        }
        let Some(wait) = deadline else { return Ok(()) };
        let now = self.started.elapsed();
        let at = (now + wait).as_millis() as u64;
        let armed = self.armed.load(Ordering::Relaxed);
        if at < armed || armed <= now.as_millis() as u64 {
            self.armed.store(at, Ordering::Relaxed);
            // One millisecond more, so that the deadline has passed on every clock.
            let seconds = (wait + Duration::from_millis(1)).as_secs_f64();
            self.runner.worker.bind(py).call_method1(intern!(py, "set_timer"), (seconds,))?;
        }
        Ok(())
    }
}

#[pymethods]
impl Reactor {
    #[new]
    #[pyo3(signature = (
        server, worker, settings, endpoints, others, max_memory, topics, slot, link=None, registry=None, *,
        has_application=false
    ))]
    #[expect(clippy::too_many_arguments, reason = "everything that a worker knows at its start")]
    fn new(
        server: Py<PyAny>,
        worker: Bound<'_, PyAny>,
        settings: &Bound<'_, PyAny>,
        endpoints: Vec<(Bound<'_, PathPattern>, Bound<'_, PyAny>, bool)>,
        others: bool,
        max_memory: usize,
        topics: Vec<OptionsArgument>,
        slot: u8,
        link: Option<RawFd>,
        registry: Option<RawFd>,
        has_application: bool,
    ) -> PyResult<Self> {
        let health_path = settings.getattr("health_path")?.extract()?;
        let mut settings = crate::settings::read(settings, max_memory)?;
        let handlers = (0..=endpoints.len()).map(|_| Handlers::default()).collect();
        let patterns = endpoints.iter().map(|(pattern, ..)| pattern.clone().unbind()).collect();
        let is_encrypted = settings.certificate.is_some();
        let json = worker.getattr("json")?;
        let bodies = if has_application { Bodies::Streamed } else { Bodies::Whole };
        settings.endpoints = crate::endpoints::read(endpoints, others, bodies)?;
        settings.topics = crate::topics::rules(topics);
        let (send_queue_size, rules) = (settings.send_queue_size, settings.topics.clone());
        let registry = match registry {
            Some(descriptor) => Registry::open(taken_over(descriptor)),
            None => Registry::private(settings.max_connections),
        }?;
        let mut engine = engine::Reactor::new(settings, registry, slot)?;
        if let Some(descriptor) = link {
            engine.join(taken_over(descriptor))?;
        }
        let home = Py::new(worker.py(), Home::new(engine.shared(), json.clone()))?;
        Ok(Self {
            shared: Arc::clone(engine.shared()),
            handlers,
            patterns,
            is_encrypted,
            json: json.unbind(),
            health_path,
            is_stopping: AtomicBool::new(false),
            runner: Runner {
                make_task: worker.getattr("make_task")?.unbind(),
                task_options: worker.getattr("task_options")?.cast_into::<PyDict>()?.unbind(),
                shared_tasks: SharedTasks::of(&worker)?,
                worker: worker.unbind(),
                stopwatch: Stopwatch::new(Arc::clone(engine.shared())),
            },
            home,
            engine: LoopCell::new(engine),
            ids: LoopCell::new(Ids::default()),
            server,
            send_queue_size,
            topics: rules,
            current: CurrentId::default(),
            in_turn: AtomicBool::new(false),
            scheduled: AtomicBool::new(false),
            selector: OnceLock::new(),
            started: Instant::now(),
            armed: AtomicU64::new(u64::MAX),
            application: OnceLock::new(),
            addresses: LoopCell::new(Addresses::default()),
            questions: Mutex::default(),
            last_question: AtomicU64::new(0),
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.server)?;
        visit.call(&self.home)?;
        visit.call(&self.json)?;
        visit.call(&self.runner.worker)?;
        visit.call(&self.runner.make_task)?;
        visit.call(&self.runner.task_options)?;
        if let Some(application) = self.application.get() {
            application.traverse(&visit)?;
        }
        if let Some(selector) = self.selector.get() {
            selector.traverse(&visit)?;
        }
        let all = self.handlers.iter().flat_map(|own| [&own.open, &own.message, &own.close, &own.drain, &own.request]);
        all.filter_map(OnceLock::get).try_for_each(|handler| visit.call(handler.callable()))
    }

    /// Sets the handler of `open`, `message`, `close`, `drain` or `request`, once.
    ///
    /// Args:
    ///     endpoint: 0 for that of the server, and from 1 on those of its endpoints.
    ///     count: How many of the event's arguments it takes.
    ///     kind: "sync", "async" or "threaded".
    fn on(&self, endpoint: usize, event: &str, handler: Py<PyAny>, count: usize, kind: &str) -> PyResult<()> {
        let own = self.handlers.get(endpoint).ok_or_else(|| PyValueError::new_err("there is no such endpoint"))?;
        let cell = match event {
            "open" => &own.open,
            "message" => &own.message,
            "close" => &own.close,
            "drain" => &own.drain,
            "request" => &own.request,
            other => {
                return Err(PyValueError::new_err(format!("unknown event of the reactor: {other}")));
            }
        };
        let handler = Handler::new(handler, count, kind)?;
        cell.set(handler).map_err(|_| PyValueError::new_err(format!("{event} already has a handler")))
    }

    /// Passes HTTP requests to an ASGI application from here on.
    ///
    /// Args:
    ///     callable: An `async def` function of (scope, receive, send), or what is called in the same way.
    ///     front: Takes over when a request does not end at once, or not well; see `hubbub.asgi.front.Front`.
    ///     context: The context whose copies requests run in.
    ///     scope: What the scopes of all requests have in common; values that are dicts are copied for each.
    ///     tells_all: Whether the front is told of all requests that have ended.
    ///     is_direct: Whether requests need not be shown to the worker first.
    fn serve_application(
        this: &Bound<'_, Self>,
        callable: Py<PyAny>,
        front: Py<PyAny>,
        context: Py<PyAny>,
        scope: &Bound<'_, PyDict>,
        tells_all: bool,
        is_direct: bool,
    ) -> PyResult<()> {
        let event_loop = this.get().runner.worker.bind(this.py()).getattr("loop")?.unbind();
        let application =
            Application::new(this.as_any(), callable, front, event_loop, context, scope, tells_all, is_direct)?;
        let cell = &this.get().application;
        cell.set(application).map_err(|_| PyRuntimeError::new_err("an application is served already"))
    }

    /// Calls the application for a request that the worker was shown first.
    fn call_application(&self, token: u64, scope: Bound<'_, PyDict>, body: Option<Py<PyBytes>>) -> PyResult<()> {
        let application = self.application().ok_or_else(no_application)?;
        self.call_application_for(application, Token::from_bits(token), scope, body)
    }

    /// Accepts connections from a listening socket, whose descriptor belongs to the reactor from here on.
    ///
    /// Args:
    ///     descriptor: It listens, on TCP or a Unix socket.
    ///     shared: Whether other processes go on using the socket when this server stops.
    fn listen(&self, descriptor: RawFd, shared: bool) -> PyResult<()> {
        Ok(self.engine()?.listen(taken_over(descriptor), ownership(shared))?)
    }

    /// The descriptor that becomes readable when a turn is due.
    fn fileno(&self) -> PyResult<RawFd> {
        Ok(self.engine()?.fileno())
    }

    /// Runs one turn. The event loop has to call this when `fileno()` is readable, or a deadline has passed.
    fn turn(&self, py: Python<'_>) -> PyResult<()> {
        self.end_if_forked(py)?;
        self.turn_now(py)
    }

    /// Takes the place of an event loop's selector from here on: its descriptor is waited for here, and it has to call
    /// `select` here, not `turn`.
    ///
    /// Args:
    ///     event_loop: The event loop of the calling thread.
    ///     descriptor: The selector's own descriptor.
    ///     select: The selector's own method.
    ///     context: The context that turns run in; no other code may be running in it when `select` is called.
    fn take_over(
        &self,
        event_loop: Py<PyAny>,
        descriptor: RawFd,
        select: Py<PyAny>,
        context: Py<PyAny>,
    ) -> PyResult<()> {
        self.engine()?.wait_also_for(descriptor)?;
        let selector = Selector::new(event_loop, select, context);
        self.selector.set(selector).map_err(|_| PyRuntimeError::new_err("a selector has been taken over already"))
    }

    /// Waits until something is ready for the event loop or for this reactor, at most for `timeout` seconds (`None`:
    /// for ever), and runs a turn if there is something to do. Returns what is ready for the event loop, as its
    /// selector would.
    #[pyo3(signature = (timeout=None))]
    fn select<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        self.end_if_forked(py)?;
        let selector = self.selector.get().ok_or_else(|| PyRuntimeError::new_err("no selector was taken over"))?;
        self.wait_and_turn(py, selector, timeout)
    }

    /// Runs the turn that `schedule_turn` requested from the event loop. No other turn may take its place: both would
    /// then schedule the next one, and there would be more and more of them.
    fn scheduled_turn(&self, py: Python<'_>) -> PyResult<()> {
        self.scheduled.store(false, Ordering::Relaxed);
        self.turn(py)
    }

    /// Queue one message for the connection `fd`; see `hubbub.Server.push`, which this replaces while it runs.
    #[pyo3(
        signature = (fd, data, opcode=None, finish=FinishArgument(Fin::Last)),
        text_signature = "($self, fd, data, opcode=None, finish=True)"
    )]
    fn push(
        &self,
        py: Python<'_>,
        fd: FdArgument,
        data: &Bound<'_, PyAny>,
        opcode: Option<OpcodeArgument>,
        finish: FinishArgument,
    ) -> PyResult<bool> {
        let FinishArgument(fin) = finish;
        let data = self.data(data)?;
        let (opcode, payload) = data.message(opcode.map(|opcode| opcode.0), fin, self.send_queue_size)?;
        let Some(mine) = self.engine.mine() else {
            return Ok(self.shared.push(fd.0, opcode, fin, payload));
        };
        match self.on_own_loop(py, mine, |engine| engine.push(fd.0, opcode, fin, payload))? {
            Ok(queued) => Ok(queued),
            Err(PushError::NotUtf8) => Err(not_utf8("the fragments together are not")),
        }
    }

    /// Queues one message if the outbox has room for it. Returns whether the connection is open, or `None` if there is
    /// no room: then `worker.outbox_has_room` or `worker.connection_gone` will be called, unless another worker is
    /// stopped or behind. Stop waiting with `stop_sending`.
    #[pyo3(signature = (fd, data, opcode=None))]
    fn send(
        &self,
        py: Python<'_>,
        fd: FdArgument,
        data: &Bound<'_, PyAny>,
        opcode: Option<OpcodeArgument>,
    ) -> PyResult<Option<bool>> {
        let data = self.data(data)?;
        let (opcode, payload) = data.message(opcode.map(|opcode| opcode.0), Fin::Last, self.send_queue_size)?;
        match self.on_loop(py, |engine| engine.send(fd.0, opcode, payload))? {
            Ok(Sending::Done) => Ok(Some(true)),
            Ok(Sending::NotOpen) => Ok(Some(false)),
            Ok(Sending::Waits) => Ok(None),
            Err(PushError::NotUtf8) => Err(not_utf8("the fragments together are not")),
        }
    }

    /// Raises what `send` would raise for these arguments.
    #[pyo3(signature = (fd, data, opcode=None))]
    fn check_sending(&self, fd: FdArgument, data: &Bound<'_, PyAny>, opcode: Option<OpcodeArgument>) -> PyResult<()> {
        let FdArgument(_) = fd;
        let data = self.data(data)?;
        data.message(opcode.map(|opcode| opcode.0), Fin::Last, self.send_queue_size).map(|_| ())
    }

    /// Stops waiting for room in the outbox of a connection.
    fn stop_sending(&self, py: Python<'_>, fd: FdArgument) -> PyResult<()> {
        self.on_loop(py, |engine| engine.stop_awaiting_room(fd.0))
    }

    /// See `hubbub.Server.ping`.
    fn ping(&self, py: Python<'_>, fd: FdArgument, data: PlainData<'_>) -> PyResult<bool> {
        let payload = data.0.payload()?;
        check_ping(payload)?;
        let command = Command::Ping { fd: fd.0, payload };
        self.command(py, fd.0, |engine| engine.ping(fd.0, payload), command)
    }

    /// See `hubbub.Server.disconnect`.
    #[pyo3(
        signature = (fd, code=CodeArgument(1000), reason=Reason("")),
        text_signature = "($self, fd, code=1000, reason='')"
    )]
    fn disconnect(&self, py: Python<'_>, fd: FdArgument, code: CodeArgument, reason: Reason<'_>) -> PyResult<bool> {
        let Reason(reason) = reason;
        let code = check_close(code.0, reason)?;
        let command = Command::Disconnect { fd: fd.0, code, reason };
        self.command(py, fd.0, |engine| engine.disconnect(fd.0, code, reason), command)
    }

    /// See `hubbub.Server.subscribe`. `info` is JSON text, or `None`.
    #[pyo3(signature = (fd, topic, info=None))]
    fn subscribe(&self, py: Python<'_>, fd: FdArgument, topic: Topic<'_>, info: Option<&str>) -> PyResult<bool> {
        let Topic(topic) = topic;
        let subscribed = match self.engine.mine() {
            Some(mine) => self.on_own_loop(py, mine, |engine| engine.subscribe(fd.0, topic, info))?,
            None => self.shared.subscribe(fd.0, topic, info),
        };
        if subscribed == Subscribed::TooMany {
            self.runner.worker.bind(py).call_method1(intern!(py, "topics_exceeded"), (fd.0,))?;
        }
        Ok(subscribed == Subscribed::Done)
    }

    /// See `hubbub.Server.unsubscribe`.
    fn unsubscribe(&self, py: Python<'_>, fd: FdArgument, topic: Topic<'_>) -> PyResult<bool> {
        let Topic(topic) = topic;
        let command = Command::Unsubscribe { fd: fd.0, topic };
        self.command(py, fd.0, |engine| engine.unsubscribe(fd.0, topic), command)
    }

    /// See `hubbub.Server.publish`.
    #[pyo3(signature = (topic, data, *, exclude=None, key=None))]
    fn publish(
        &self,
        py: Python<'_>,
        topic: Topic<'_>,
        data: &Bound<'_, PyAny>,
        exclude: Option<&Bound<'_, PyAny>>,
        key: Option<MessageKey<'_>>,
    ) -> PyResult<()> {
        let Topic(topic) = topic;
        let is_json = Data::of(data).is_none() && (data.is_instance_of::<PyDict>() || data.is_instance_of::<PyList>());
        let data = self.data(data)?;
        let publication = data.publication(is_json, key.as_ref().map(|key| key.0), self.send_queue_size)?;
        if self.topics.of(topic).is_some_and(|options| options.envelope) {
            check_enveloped(topic, &publication, self.send_queue_size)?;
        }
        let exclude = excluded(exclude)?;
        if let Some(mine) = self.engine.mine() {
            return self.on_own_loop(py, mine, |engine| engine.publish(topic, publication, &exclude));
        }
        self.shared.command(Command::Publish { topic, publication, exclude: exclude.into() });
        Ok(())
    }

    /// See `hubbub.Server.broadcast`.
    #[pyo3(signature = (data, *, exclude=None))]
    fn broadcast(&self, py: Python<'_>, data: &Bound<'_, PyAny>, exclude: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let data = self.data(data)?;
        let (opcode, payload): (DataOpcode, _) = data.message(None, Fin::Last, self.send_queue_size)?;
        let exclude = excluded(exclude)?;
        if let Some(mine) = self.engine.mine() {
            return self.on_own_loop(py, mine, |engine| engine.broadcast(opcode, payload, &exclude));
        }
        self.shared.command(Command::Broadcast { opcode, payload, exclude: exclude.into() });
        Ok(())
    }

    /// See `hubbub.Server.exists`.
    fn exists(&self, fd: FdArgument) -> bool {
        self.shared.registry.exists(fd.0)
    }

    /// See `hubbub.Server.state`.
    fn state<'py>(&self, fd: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let Ok(fd) = fd.cast::<PyInt>() else {
            return Err(wrong_type("fd", "an int", fd.as_borrowed()));
        };
        self.home.get().state(fd)
    }

    /// Forgets the states of all connections.
    fn forget_states(&self, py: Python<'_>) {
        self.home.get().forget_all(py);
    }

    /// The values of a `hubbub.ConnectionInfo`, or `None`.
    fn info<'py>(&self, py: Python<'py>, fd: FdArgument) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let info = self.shared.info(fd.0);
        info.map(|info| info_tuple(py, self.shared.registry.worker_of(fd.0), &info)).transpose()
    }

    /// The ids of all open WebSockets.
    fn open_ids(&self) -> Vec<Fd> {
        self.shared.registry.open_ids()
    }

    /// The ids of this process's open WebSockets.
    fn own_ids(&self) -> PyResult<Vec<Fd>> {
        Ok(self.engine()?.own_ids())
    }

    /// Closes every descriptor, in a forked child. Nothing else may be called afterwards.
    fn abandon(&self) -> PyResult<()> {
        note_fork();
        self.engine().map(|mut engine| engine.abandon())
    }

    /// The number of open WebSockets in all processes.
    fn connections(&self) -> u64 {
        self.shared.registry.connections()
    }

    /// See `hubbub.Server.stats`.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        stats_dict(py, &self.shared.registry.stats())
    }

    /// The measurements of all processes; see `hubbub.metrics`.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        metrics_dict(py, &self.shared.registry.metrics())
    }

    /// Counts the time for which a handler called from Python has held the event loop, in seconds.
    fn handler_held(&self, seconds: f64) {
        self.runner.stopwatch.held(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    }

    /// Records whether this worker's event loop is stuck; usable from any thread. Returns `False` if the hub has
    /// already reported it.
    #[pyo3(signature = (*, is_stuck))]
    fn mark_stuck(&self, is_stuck: bool) -> bool {
        let (from, to) = if is_stuck { (Stuck::No, Stuck::SaidByWorker) } else { (Stuck::SaidByWorker, Stuck::No) };
        self.shared.stuck().change(from, to)
    }

    /// Whether this worker has been reported as stuck.
    fn is_marked_stuck(&self) -> bool {
        self.shared.stuck().is_set()
    }

    // ---- the other processes of the server --------------------------------------------------------------------------

    /// Tells the hub, if there is one, that this worker accepts connections.
    fn ready(&self, py: Python<'_>) -> PyResult<()> {
        self.on_loop(py, engine::Reactor::tell_ready)
    }

    /// Tells the hub that this worker has been asked to leave; `worker.leave` will be called.
    fn ask_to_leave(&self, py: Python<'_>) -> PyResult<()> {
        self.on_loop(py, engine::Reactor::tell_leaving)
    }

    /// Asks the master for "reload" or "shutdown".
    fn ask(&self, py: Python<'_>, what: &str) -> PyResult<()> {
        match what {
            "reload" => self.on_loop(py, engine::Reactor::ask_for_reload),
            "shutdown" => self.on_loop(py, engine::Reactor::ask_for_shutdown),
            other => Err(PyValueError::new_err(format!("unknown request to the master: {other}"))),
        }
    }

    /// Returns connections without a request to the hub, for another worker.
    fn return_sockets(&self, py: Python<'_>) -> PyResult<()> {
        self.on_loop(py, engine::Reactor::return_sockets)
    }

    /// Sends a message to a worker's `pipe_message` handler, from any thread. A message that does not fit in the queues
    /// on the way is dropped and counted.
    fn send_message(&self, py: Python<'_>, worker_id: u8, data: PlainData<'_>) -> PyResult<()> {
        let (format, payload) = data.0.piped()?;
        if let Some(mine) = self.engine.mine() {
            return self.on_own_loop(py, mine, |engine| {
                engine.send_message(worker_id, format, payload);
            });
        }
        let from = self.shared.worker_id();
        self.shared.command(Command::PipeMessage { from, to: worker_id, format, payload });
        Ok(())
    }

    /// To be called when a `pipe_message` handler has ended.
    fn pipe_message_done(&self, py: Python<'_>) -> PyResult<()> {
        self.on_loop(py, engine::Reactor::pipe_message_done)
    }

    /// Counts the subscribers of a topic in all processes, including subscriptions that this process has requested so
    /// far. In a turn, `callback` is given the count; or `None` and the ids of the workers that have not answered in
    /// time. If it is given no ids either, too many such questions are waiting. Returns the question's number.
    fn count_subscribers(&self, py: Python<'_>, topic: Topic<'_>, callback: Py<PyAny>) -> PyResult<u64> {
        self.ask_all(py, &Question::Subscribers(topic.0), callback)
    }

    /// The same for a page of topics: the first `limit` whose names begin with `prefix` and come after `after`. The
    /// answer is a list of names and numbers of subscribers, possibly a shorter one, and whether more follow.
    fn list_topics(
        &self,
        py: Python<'_>,
        prefix: Prefix<'_>,
        after: After<'_>,
        limit: u32,
        callback: Py<PyAny>,
    ) -> PyResult<u64> {
        self.ask_all(py, &Question::Topics { prefix: prefix.0, after: after.0, limit }, callback)
    }

    /// The same for a page of a topic's members: the first `limit` ids above `after`.
    fn list_members(
        &self,
        py: Python<'_>,
        topic: Topic<'_>,
        after: FdArgument,
        limit: u32,
        callback: Py<PyAny>,
    ) -> PyResult<u64> {
        self.ask_all(py, &Question::Members { topic: topic.0, after: after.0, limit }, callback)
    }

    /// Asks all hosts: "info" the host of `fd`; "connections", "stats"; "subscribers" of `topic`; "topics" and
    /// "members" as `list_topics` and `list_members`. The answer is a list of numbers of hosts and their answers, and a
    /// list of the hosts that have not answered.
    #[expect(clippy::too_many_arguments, reason = "the arguments of several questions")]
    #[pyo3(signature = (what, callback, *, fd=None, topic=None, prefix=None, after_name=None, after=None, limit=0))]
    fn ask_everywhere(
        &self,
        py: Python<'_>,
        what: &str,
        callback: Py<PyAny>,
        fd: Option<FdArgument>,
        topic: Option<Topic<'_>>,
        prefix: Option<Prefix<'_>>,
        after_name: Option<After<'_>>,
        after: Option<FdArgument>,
        limit: u32,
    ) -> PyResult<u64> {
        let question = everywhere::question(what, fd, topic, prefix, after_name, after, limit)?;
        self.ask_all(py, &question, callback)
    }

    /// Whether this server is drained: handshakes are refused.
    fn is_draining(&self) -> bool {
        self.shared.registry.is_draining()
    }

    /// Whether this server has a broker of several hosts that cannot be reached.
    fn is_degraded(&self) -> bool {
        self.shared.registry.is_degraded()
    }

    /// All hosts that are alive, this one included; see `host_tuples`.
    fn hosts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        host_tuples(py, self.shared.registry.hosts())
    }

    /// Subscribes a connection of any process, and sends it what it has missed: everything `since` a position, or, if
    /// that cannot be had, the `last` messages. The answer is whether everything was had, how many old messages were
    /// sent, and the epoch and offset behind them.
    #[expect(clippy::too_many_arguments, reason = "what is wanted, from where, and by whom")]
    fn join(
        &self,
        py: Python<'_>,
        fd: FdArgument,
        topic: Topic<'_>,
        last: u32,
        since: Option<PositionArgument<'_>>,
        info: Option<&str>,
        callback: Py<PyAny>,
    ) -> PyResult<u64> {
        let since = since.map(|since| since.position());
        let number = self.keep_callback(callback);
        self.on_loop(py, |engine| engine.join_topic(number, fd.0, topic.0, since, last, info))?;
        Ok(number)
    }

    /// Asks for messages that a topic has kept: the first `limit` after a position, or the newest `limit` below the
    /// offset `before` (0: of all). The answer is a list of offsets, data and times (Unix seconds), possibly a shorter
    /// one; the epoch and offset of the topic; and whether more follow.
    #[expect(clippy::too_many_arguments, reason = "a range of messages")]
    fn history(
        &self,
        py: Python<'_>,
        topic: Topic<'_>,
        after: Option<PositionArgument<'_>>,
        before: u64,
        limit: u32,
        newest_first: bool,
        callback: Py<PyAny>,
    ) -> PyResult<u64> {
        let after = after.map(|after| after.position());
        self.ask_all(py, &Question::History { topic: topic.0, after, before, limit, newest_first }, callback)
    }

    /// Removes the history of a topic. The answer is `True`.
    fn forget_history(&self, py: Python<'_>, topic: Topic<'_>, callback: Py<PyAny>) -> PyResult<u64> {
        self.ask_all(py, &Question::Forget(topic.0), callback)
    }

    /// Asks for a page of a topic's members and what is known about them, as JSON: the first `limit` with ids above
    /// `after`.
    fn presence(
        &self,
        py: Python<'_>,
        topic: Topic<'_>,
        after: FdArgument,
        limit: u32,
        callback: Py<PyAny>,
    ) -> PyResult<u64> {
        self.ask_all(py, &Question::Presence { topic: topic.0, after: after.0, limit }, callback)
    }

    /// To be called just before the handler of an event that `worker.on_member` was told of, "join" or "leave"; or when
    /// there is none.
    fn tells_of_member(&self, py: Python<'_>, event: &str, fd: FdArgument, number: u64) -> PyResult<()> {
        let event = if event == "join" { MemberEvent::Joined } else { MemberEvent::Left };
        self.on_loop(py, |engine| engine.tells_of_member(event, fd.0, number))
    }

    /// Drops a question whose answer is no longer wanted.
    fn forget_question(&self, number: u64) {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// Has `worker.connection_gone` called as soon as a connection of any worker is no longer open. Returns false if it
    /// is not open now.
    fn watch(&self, py: Python<'_>, fd: FdArgument) -> PyResult<bool> {
        match self.on_loop(py, |engine| engine.watch(fd.0))? {
            Watching::Begun => Ok(true),
            Watching::NotOpen => Ok(false),
            Watching::TooMany => Err(PyRuntimeError::new_err("too many calls are waiting for connections to close")),
        }
    }

    /// Stops waiting for the end of a connection.
    fn unwatch(&self, py: Python<'_>, fd: FdArgument) -> PyResult<()> {
        self.on_loop(py, |engine| engine.unwatch(fd.0))
    }

    // ---- handshakes and requests ------------------------------------------------------------------------------------

    /// The subprotocols that a handshake offers, and the one that the settings would choose.
    fn offered_subprotocols(&self, token: u64) -> PyResult<(Vec<String>, Option<String>)> {
        Ok(self.engine()?.offered_subprotocols(Token::from_bits(token)))
    }

    /// Accepts a handshake and runs `open`. Returns the connection's id; `None` if it is gone or there is no room for
    /// it.
    fn accept(
        &self,
        py: Python<'_>,
        token: u64,
        request: Bound<'_, PyAny>,
        subprotocol: Option<&str>,
        headers: HeaderPairs,
    ) -> PyResult<Option<Fd>> {
        let client = request.getattr(intern!(py, "client"))?.extract()?;
        let token = Token::from_bits(token);
        let endpoint = self.engine()?.endpoint(token);
        let fd = self.on_loop(py, |engine| engine.accept(token, subprotocol, &headers.0, address(&client)))?;
        if let Some(fd) = fd {
            self.opened(py, fd, endpoint, Some(request))?;
        }
        Ok(fd)
    }

    /// The same for the ASGI application, whose handlers are called for the connection. `client` is its address and
    /// port.
    fn accept_for_app(
        &self,
        py: Python<'_>,
        token: u64,
        subprotocol: Option<&str>,
        headers: HeaderPairs,
        client: Option<(String, u16)>,
    ) -> PyResult<Option<Fd>> {
        let client = client.as_ref().and_then(address);
        self.on_loop(py, |engine| engine.accept(Token::from_bits(token), subprotocol, &headers.0, client))
    }

    /// Refuses a handshake with a close code, which a browser's page can read.
    fn refuse(&self, py: Python<'_>, token: u64, code: i64, reason: &str) -> PyResult<()> {
        let code = check_close(code, reason)?;
        self.on_loop(py, |engine| engine.refuse(Token::from_bits(token), code, reason))
    }

    /// Answers a request or refuses a handshake.
    fn respond(&self, token: u64, status: u16, headers: HeaderPairs, body: &Bound<'_, PyBytes>) -> PyResult<bool> {
        self.send_body(Token::from_bits(token), status, &headers.0, body)
    }

    /// The same, with `length` bytes of an open file, starting at `offset`, as the body. Takes over the descriptor in
    /// any case. The bytes are read as the peer takes them.
    #[expect(clippy::too_many_arguments, reason = "a response, and a part of a file")]
    fn respond_file(
        &self,
        py: Python<'_>,
        token: u64,
        status: u16,
        headers: &Bound<'_, PyAny>,
        descriptor: RawFd,
        offset: u64,
        length: usize,
    ) -> PyResult<bool> {
        // First of all, so that it is closed even if the headers are wrong.
        let file = File::from(taken_over(descriptor));
        let headers: HeaderPairs = headers.extract()?;
        let token = Token::from_bits(token);
        self.on_loop(py, |engine| engine.respond_file(token, status, &headers.0, file, offset, length))
    }

    // ---- answers in parts, and bodies as they arrive ----------------------------------------------------------------

    /// Begins an answer whose body is sent in parts, `length` bytes in all if that is known. Returns whether the client
    /// is still there.
    fn begin_answer(
        &self,
        py: Python<'_>,
        token: u64,
        status: u16,
        headers: HeaderPairs,
        length: Option<u64>,
    ) -> PyResult<bool> {
        self.on_loop(py, |engine| engine.begin_answer(Token::from_bits(token), status, &headers.0, length))
    }

    /// Sends a part of the body. Returns `True` if it is queued, `None` if it is not because too much waits for the
    /// client (`worker.request_progressed` will be called), `False` if the client has left.
    ///
    /// Raises:
    ///     ValueError: The body is longer than announced; the connection is closed.
    fn send_part(&self, token: u64, part: &Bound<'_, PyBytes>) -> PyResult<Option<bool>> {
        let (token, kept) = (Token::from_bits(token), kept(part));
        let outcome = self.on_loop(part.py(), |engine| match kept {
            Some(kept) => engine.send_kept_part(token, kept),
            None => engine.send_part(token, part.as_bytes()),
        })?;
        match outcome {
            Part::Queued => Ok(Some(true)),
            Part::Waits => Ok(None),
            Part::Gone => Ok(Some(false)),
            Part::WrongLength => Err(PyValueError::new_err(TOO_LONG)),
        }
    }

    /// Ends an answer. Returns whether the client is still there.
    ///
    /// Raises:
    ///     ValueError: The body is shorter than announced; the connection is closed.
    fn end_answer(&self, py: Python<'_>, token: u64, trailers: HeaderPairs) -> PyResult<bool> {
        match self.on_loop(py, |engine| engine.end_answer(Token::from_bits(token), &trailers.0))? {
            Part::WrongLength => Err(PyValueError::new_err(TOO_SHORT)),
            part => Ok(part == Part::Queued),
        }
    }

    /// Gives up an answer that was begun, so that the client notices that it is not whole.
    fn cut_answer(&self, py: Python<'_>, token: u64) -> PyResult<()> {
        self.on_loop(py, |engine| engine.cut_answer(Token::from_bits(token)))
    }

    /// To be called when nothing works any longer on a request that was passed to the ASGI application, or whose answer
    /// was begun.
    fn done(&self, py: Python<'_>, token: u64) -> PyResult<()> {
        self.on_loop(py, |engine| engine.done(Token::from_bits(token)))
    }

    /// Whether the client of a request that has not been answered has left.
    fn has_left(&self, token: u64) -> PyResult<bool> {
        Ok(self.engine()?.has_left(Token::from_bits(token)))
    }

    /// Marks a handler of the connection as running: its further messages wait until `release`.
    fn hold(&self, py: Python<'_>, fd: FdArgument) -> PyResult<()> {
        self.on_loop(py, |engine| engine.hold(fd.0))
    }

    /// The number of handlers still running whose clients have left, if it has reached the limit; otherwise 0.
    fn handlers_in_excess(&self) -> PyResult<usize> {
        let engine = self.engine()?;
        Ok(if engine.is_overrun() { engine.outliving() } else { 0 })
    }

    /// To be called when a suspended handler of the connection has ended.
    fn release(&self, py: Python<'_>, fd: FdArgument) -> PyResult<()> {
        self.on_loop(py, |engine| engine.release(fd.0))
    }

    /// To be called when the connection's `close` handler has ended.
    fn forget(&self, py: Python<'_>, fd: FdArgument) -> PyResult<()> {
        self.on_loop(py, |engine| engine.forget(fd.0))?;
        self.home.get().forget(py, fd.0)
    }

    /// Closes the listening sockets, and reads no further messages; those already read still go to their handlers. If
    /// `refuse` is false, requests already made are still answered, and handshakes accepted, until `close_all`.
    #[pyo3(signature = (*, refuse))]
    fn stop_accepting(&self, py: Python<'_>, refuse: bool) -> PyResult<()> {
        self.is_stopping.store(true, Ordering::Relaxed);
        let requests = if refuse { Requests::Refused } else { Requests::Answered };
        self.on_loop(py, |engine| engine.stop_accepting(requests))
    }

    /// Begins the closing handshake on every open WebSocket, and closes HTTP connections that are between two requests.
    fn close_all(&self, py: Python<'_>, code: i64, reason: &str) -> PyResult<()> {
        let code = check_close(code, reason)?;
        self.on_loop(py, |engine| engine.close_all(code, reason))
    }

    /// The number of connections in the middle of a TLS handshake, or of their first request after it.
    fn newcomers(&self) -> PyResult<usize> {
        Ok(self.engine()?.newcomers())
    }

    /// The number of connections whose client has begun a request, or waits for a handler's answer.
    fn unanswered(&self) -> PyResult<usize> {
        Ok(self.engine()?.unanswered())
    }

    /// Closes the remaining connections without further messages. Returns how many HTTP answers were cut short.
    fn abort_all(&self, py: Python<'_>) -> PyResult<usize> {
        self.on_loop(py, engine::Reactor::abort_all)
    }

    /// Stops waiting for handlers that still run: further events of their connections are delivered in the next turn.
    fn release_all(&self, py: Python<'_>) -> PyResult<()> {
        self.on_loop(py, engine::Reactor::release_all)
    }

    /// Whether a turn has yet to tell of something that has happened, such as who has left a topic.
    fn has_notices(&self) -> PyResult<bool> {
        Ok(self.engine()?.has_notices())
    }

    /// The number of connections of any kind.
    fn __len__(&self) -> PyResult<usize> {
        Ok(self.engine()?.len())
    }
}

/// Whose a listening socket is, as Python says it.
pub(crate) fn ownership(is_shared: bool) -> Ownership {
    if is_shared { Ownership::Shared } else { Ownership::Ours }
}

/// A descriptor that Python hands over.
pub(crate) fn taken_over(descriptor: RawFd) -> OwnedFd {
    // SAFETY: callers hand over an open descriptor that nothing else closes (`socket.detach()`).
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Ends a turn even if it panics: otherwise the next one would not begin.
struct EndOfTurn<'a> {
    in_turn: &'a AtomicBool,
}

impl Drop for EndOfTurn<'_> {
    fn drop(&mut self) {
        self.in_turn.store(false, Ordering::Relaxed);
    }
}

pub(crate) fn address((host, port): &(String, u16)) -> Option<SocketAddr> {
    Some(SocketAddr::new(host.parse().ok()?, *port))
}
