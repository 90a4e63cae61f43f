//! Runs the `async def` handlers of messages that arrive together in one task.
//!
//! A task costs several times as much as a short message, and most handlers end without having waited for anything. So
//! one task runs one handler after another, until one of them suspends: the task is that one's from then on. A handler
//! cannot tell such a task from a new one, because a task ends with the first handler that has used it, or its context,
//! in any way that could be noticed later.

use std::ffi::c_void;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::Fd;
use pyo3::exceptions::PyStopIteration;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{ffi, intern};

use crate::contexts::is_empty;
use crate::events::{Events, Message, Step};
use crate::handlers::{Arguments, Handler, call};
use crate::runner::{Outcome, SharedTasks, is_coroutine};

/// How often anything was asked of a task of `hubbub.tasks.HandlerTask`. The event loops of all threads share it: to take
/// an unused task for a used one does no harm.
static USES: AtomicUsize = AtomicUsize::new(0);

/// Notes that something was asked of a task that handlers share.
#[pyfunction]
pub(crate) fn note_use() {
    USES.fetch_add(1, Ordering::Relaxed);
}

/// What a shared task runs: in its first step, handlers one after another; after that, the one that has suspended.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct HandlerCoroutine {
    /// The [`Batch`] of the first step; null once that has begun.
    batch: AtomicPtr<c_void>,
    /// The coroutine of the handler that runs in the first step, which the batch keeps alive; null between two of them.
    running: AtomicPtr<ffi::PyObject>,
    suspended: OnceLock<Py<PyAny>>,
}

#[pymethods]
impl HandlerCoroutine {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.suspended.get().map_or(Ok(()), |coroutine| visit.call(coroutine))
    }

    /// The coroutine of the handler that has the task at the moment.
    fn current<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        // SAFETY: null or alive, because the batch owns a reference until it has reset this, and only one thread is
        // attached at a time.
        let running = unsafe { Bound::from_borrowed_ptr_or_opt(py, self.running.load(Ordering::Relaxed)) };
        running.or_else(|| self.suspended.get().map(|coroutine| coroutine.bind(py).clone()))
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __await__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let batch = self.batch.swap(ptr::null_mut(), Ordering::Relaxed).cast::<Batch<'_, '_, 'py>>();
        if batch.is_null() {
            return self.send(py, py.None().into_bound(py));
        }
        // SAFETY: `run_batch` has set it to its batch for the time of the call that has led here, on this thread, and
        // does not use the batch in the meantime. It is taken only once.
        unsafe { &mut *batch }.run(self)
    }

    fn send<'py>(&self, py: Python<'py>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let Some(coroutine) = self.suspended.get() else { return Err(returned(py.None().into_bound(py))) };
        match send(coroutine.bind(py), &value)? {
            Sent::Yielded(value) => Ok(value),
            Sent::Returned(value) => Err(returned(value)),
        }
    }

    #[pyo3(signature = (*error))]
    fn throw<'py>(&self, py: Python<'py>, error: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        match self.suspended.get() {
            Some(coroutine) => coroutine.bind(py).call_method1("throw", error),
            None => Err(PyErr::from_value(error.get_item(0)?)),
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.suspended.get().map_or(Ok(()), |coroutine| coroutine.call_method0(py, "close").map(|_| ()))
    }
}

/// What a coroutine did.
enum Sent<'py> {
    Yielded(Bound<'py, PyAny>),
    Returned(Bound<'py, PyAny>),
}

/// Runs a coroutine to its next `await` that suspends it, or to its end.
#[inline]
fn send<'py>(coroutine: &Bound<'py, PyAny>, value: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
    let py = coroutine.py();
    let mut result = ptr::null_mut();
    // SAFETY: both are live objects; the call sets `result` to a new reference, or sets an exception.
    unsafe {
        match ffi::PyIter_Send(coroutine.as_ptr(), value.as_ptr(), &raw mut result) {
            ffi::PySendResult::PYGEN_NEXT => Ok(Sent::Yielded(Bound::from_owned_ptr(py, result))),
            ffi::PySendResult::PYGEN_RETURN => Ok(Sent::Returned(Bound::from_owned_ptr(py, result))),
            ffi::PySendResult::PYGEN_ERROR => Err(PyErr::fetch(py)),
        }
    }
}

/// How the iterator of a coroutine returns a value.
fn returned(value: Bound<'_, PyAny>) -> PyErr {
    PyStopIteration::new_err((value.unbind(),))
}

/// How the first step of a task has ended.
enum End<'py> {
    /// All handlers have ended and left nothing. The last one held the event loop for this long, if that was too long.
    Unused(Option<Duration>),
    /// The task is the last handler's, which has suspended, failed, or used it.
    Kept,
    /// The last handler has not returned a coroutine, but this.
    Called(PyResult<Bound<'py, PyAny>>),
    /// Not a handler's fault.
    Broken(PyErr),
}

/// Messages whose handlers run in one task.
struct Batch<'b, 'a, 'py> {
    events: &'b mut Events<'a, 'py>,
    tasks: &'a SharedTasks,
    handler: &'a Handler,
    /// The message that the task is for, until the task has begun.
    first: Option<Message>,
    is_first: bool,
    /// The connection of the last message.
    fd: Fd,
    begin: Option<Instant>,
    end: End<'py>,
    /// What the turn continues with.
    next: Option<Step>,
}

impl<'py> Batch<'_, '_, 'py> {
    /// The first step of the task.
    fn run(&mut self, steps: &HandlerCoroutine) -> PyResult<Bound<'py, PyAny>> {
        let py = self.events.py;
        let nothing = || returned(py.None().into_bound(py));
        let Some(mut message) = self.first.take() else { return Err(nothing()) };
        let unused = Unused::now(py, self.tasks)?;
        loop {
            let endpoint = message.endpoint;
            match self.run_one(steps, message) {
                Ok(Ok(Sent::Returned(_))) if unused.as_ref().is_some_and(Unused::is_still) => {}
                Ok(Ok(Sent::Returned(value))) => return Err(returned(value)),
                Ok(Ok(Sent::Yielded(value))) => return Ok(value),
                Ok(Err(error)) => return Err(error),
                Err(end) => {
                    self.end = end;
                    return Err(nothing());
                }
            }
            let held = self.events.reactor.runner.stopwatch.end(self.begin.take());
            self.end = End::Unused(held);
            if held.is_some() {
                return Err(nothing());
            }
            match self.events.next() {
                Ok(Some(Step::Message(next))) if next.endpoint == endpoint => message = next,
                Ok(next) => {
                    self.next = next;
                    return Err(nothing());
                }
                Err(error) => {
                    self.end = End::Broken(error);
                    return Err(nothing());
                }
            }
            self.is_first = false;
        }
    }

    /// Calls the handler for one message, and runs its coroutine until it suspends or ends.
    #[inline(always)]
    fn run_one(&mut self, steps: &HandlerCoroutine, message: Message) -> Result<PyResult<Sent<'py>>, End<'py>> {
        let (py, reactor) = (self.events.py, self.events.reactor);
        let runner = &reactor.runner;
        self.end = End::Kept;
        self.fd = message.fd;
        let frame = self.events.kept.frame(py, reactor, message).map_err(End::Broken)?;
        self.begin = runner.stopwatch.begin();
        let arguments = Arguments::new([reactor.server.bind_borrowed(py), frame.as_any().as_borrowed()]);
        let called = runner.in_parent(py, call(py, self.handler, arguments)).map_err(End::Broken)?;
        let coroutine = match called {
            Ok(coroutine) if is_coroutine(&coroutine) => coroutine,
            other => return Err(End::Called(other)),
        };
        steps.running.store(coroutine.as_ptr(), Ordering::Relaxed);
        let sent = send(&coroutine, py.None().bind_borrowed(py).as_any());
        steps.running.store(ptr::null_mut(), Ordering::Relaxed);
        let sent = runner.in_parent(py, sent).map_err(End::Broken)?;
        if let Ok(Sent::Yielded(_)) = sent {
            // Nothing else sets it.
            let _ = steps.suspended.set(coroutine.unbind());
        } else {
            // It refers to the frame.
            drop(coroutine);
            self.events.kept.release(frame);
        }
        Ok(sent)
    }
}

/// A task and a context that no handler has used.
struct Unused<'py> {
    task: Bound<'py, PyAny>,
    context: Bound<'py, PyAny>,
    count_weak_references: Bound<'py, PyAny>,
    uses: usize,
    /// The references to the task and to the context. Any others would be a handler's.
    references: (ffi::Py_ssize_t, ffi::Py_ssize_t),
}

impl<'py> Unused<'py> {
    /// The current task; `None` if it cannot be seen whether it is used.
    fn now(py: Python<'py>, tasks: &SharedTasks) -> PyResult<Option<Self>> {
        let task = tasks.current_task.bind(py).call0()?;
        if !task.get_type().is(&tasks.class) {
            return Ok(None);
        }
        let context = task.call_method0(intern!(py, "get_context"))?;
        let count_weak_references = tasks.count_weak_references.bind(py).clone();
        // SAFETY: live objects.
        let references = unsafe { (ffi::Py_REFCNT(task.as_ptr()), ffi::Py_REFCNT(context.as_ptr())) };
        let unused = Self { task, context, count_weak_references, uses: USES.load(Ordering::Relaxed), references };
        Ok(unused.is_still().then_some(unused))
    }

    /// Whether no handler has used them since.
    #[inline]
    fn is_still(&self) -> bool {
        // SAFETY: live objects.
        let references = unsafe { (ffi::Py_REFCNT(self.task.as_ptr()), ffi::Py_REFCNT(self.context.as_ptr())) };
        USES.load(Ordering::Relaxed) == self.uses
            && references == self.references
            && is_empty(&self.context)
            && !self.has_weak_references()
    }

    #[inline]
    fn has_weak_references(&self) -> bool {
        let count = self.count_weak_references.call1((&self.task,));
        count.and_then(|count| count.is_truthy()).unwrap_or(true)
    }
}

/// Runs an `async def` handler for a message, and for those that follow as long as none of them suspends. Returns what
/// the turn continues with, if it has taken another event.
pub(crate) fn run_batch<'a, 'py>(
    events: &mut Events<'a, 'py>,
    tasks: &'a SharedTasks,
    handler: &'a Handler,
    message: Message,
) -> PyResult<Option<Step>> {
    let (py, reactor) = (events.py, events.reactor);
    let runner = &reactor.runner;
    let (fd, first) = (message.fd, Some(message));
    let (is_first, begin, end, next) = (true, None, End::Kept, None);
    let mut batch = Batch { events, tasks, handler, first, is_first, fd, begin, end, next };
    let steps = HandlerCoroutine {
        batch: AtomicPtr::new((&raw mut batch).cast()),
        running: AtomicPtr::new(ptr::null_mut()),
        suspended: OnceLock::new(),
    };
    let steps = Bound::new(py, steps)?;
    let task = tasks.class.bind(py).call((&steps,), Some(runner.task_options.bind(py)));
    // The batch does not outlive this function, even if the task has not taken it.
    steps.get().batch.store(ptr::null_mut(), Ordering::Relaxed);
    let task = runner.in_parent(py, task)?;
    if task.is_ok()
        && let Some(first) = batch.first.take()
    {
        // The event loop is not running, so the task has not begun. It ends when it does.
        handler.keeps_its_task();
        return Ok(Some(Step::Message(first)));
    }
    let outcome = match (batch.end, task) {
        (End::Broken(error), _) => return Err(error),
        (End::Unused(held), Ok(_)) => {
            if let Some(held) = held {
                runner.was_slow(py, "message", handler, held)?;
            }
            return Ok(batch.next);
        }
        (_, Err(error)) => runner.failed(py, "message", batch.fd, handler, error)?,
        (End::Called(result), Ok(_)) => runner.run_called(py, "message", batch.fd, handler, result)?,
        (End::Kept, Ok(task)) => runner.follow(py, "message", batch.fd, handler, &task)?,
    };
    if batch.is_first {
        handler.keeps_its_task();
    }
    if let Some(held) = runner.stopwatch.end(batch.begin) {
        runner.was_slow(py, "message", handler, held)?;
    }
    if outcome == Outcome::Suspended {
        reactor.engine()?.hold(batch.fd);
    }
    Ok(batch.next)
}
