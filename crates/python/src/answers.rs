//! Answers plain requests with what their handlers return. The worker does it in unusual cases; see `handle` in
//! `turn.rs`, and `hubbub.worker`.

use engine::Token;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString, PyType};

use crate::bodies::kept;
use crate::contexts::Contexts;
use crate::handlers::{Arguments, Handler, call};
use crate::header_pairs::HeaderPairs;
use crate::reactor::Reactor;
use crate::runner::{ends_the_loop, is_coroutine};

impl Reactor {
    /// Calls the `request` handler of an endpoint, and sends the answer that it returns.
    ///
    /// # Errors
    /// SystemExit and KeyboardInterrupt from the handler.
    pub(crate) fn answer_by<'py>(
        &self,
        py: Python<'py>,
        handler: &Handler,
        token: Token,
        request: Bound<'py, PyAny>,
        contexts: &mut Contexts<'py>,
    ) -> PyResult<()> {
        let runner = &self.runner;
        let arguments = Arguments::new([self.server.bind_borrowed(py), request.as_borrowed()]);
        let begin = runner.stopwatch.begin();
        let called = if handler.is_async() {
            contexts.leave();
            call(py, handler, arguments)
        } else {
            contexts.run(py, || call(py, handler, arguments))
        };
        let called = runner.in_parent(py, called)?;
        let ended = match called {
            Ok(coroutine) if is_coroutine(&coroutine) => {
                contexts.leave();
                let task = runner.make_task.bind(py).call((coroutine,), Some(runner.task_options.bind(py)));
                match runner.in_parent(py, task)? {
                    Ok(task) if !task.call_method0(intern!(py, "done"))?.is_truthy()? => {
                        let arguments = (token.to_bits(), &request, task);
                        runner.worker.bind(py).call_method1(intern!(py, "request_suspended"), arguments)?;
                        None
                    }
                    Ok(task) => Some(task.call_method0(intern!(py, "result"))),
                    Err(error) => Some(Err(error)),
                }
            }
            called => Some(called),
        };
        if let Some(held) = runner.stopwatch.end(begin) {
            contexts.leave();
            runner.was_slow(py, "request", handler, held)?;
        }
        let Some(ended) = ended else { return Ok(()) };
        let (answer, error) = match ended.and_then(|answer| Ok((self.send_usual(token, &answer)?, answer))) {
            Ok((true, _)) => return Ok(()),
            Ok((false, answer)) => (Some(answer), None),
            Err(error) if ends_the_loop(py, &error) => return Err(error),
            Err(error) => (None, Some(error)),
        };
        contexts.leave();
        let arguments = (token.to_bits(), request, answer, error);
        runner.worker.bind(py).call_method1(intern!(py, "request_handled"), arguments)?;
        runner.stopwatch.restart();
        Ok(())
    }

    /// Sends an answer of one of the usual kinds: text, bytes, or a response with a body of bytes. Returns whether it is
    /// one.
    fn send_usual(&self, token: Token, answer: &Bound<'_, PyAny>) -> PyResult<bool> {
        static RESPONSE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let py = answer.py();
        if let Ok(text) = answer.cast_exact::<PyString>() {
            static TYPE: PyOnceLock<Py<PyString>> = PyOnceLock::new();
            let content_type = TYPE.import(py, "hubbub.responses", "TYPE_OF_TEXT")?.to_str()?;
            let text = text.to_str()?;
            let headers = [("Content-Type", content_type)];
            let headers = if text.is_empty() { &headers[..0] } else { &headers };
            self.on_loop(py, |engine| engine.respond(token, 200, headers, text.as_bytes()))?;
            return Ok(true);
        }
        if let Ok(bytes) = answer.cast_exact::<PyBytes>() {
            static TYPE: PyOnceLock<Py<PyString>> = PyOnceLock::new();
            let content_type = TYPE.import(py, "hubbub.responses", "TYPE_OF_BYTES")?.to_str()?;
            let headers = [("Content-Type", content_type)];
            let headers = if bytes.as_bytes().is_empty() { &headers[..0] } else { &headers };
            self.send_body(token, 200, headers, bytes)?;
            return Ok(true);
        }
        // A class of its own may send its body in another way, as that of files does.
        if !answer.get_type().is(RESPONSE.import(py, "hubbub.responses", "Response")?) {
            return Ok(false);
        }
        let body = answer.getattr(intern!(py, "body"))?;
        let Ok(body) = body.cast_exact::<PyBytes>() else { return Ok(false) };
        let status = answer.getattr(intern!(py, "status"))?.extract()?;
        let headers = answer.getattr(intern!(py, "headers"))?.getattr(intern!(py, "pairs"))?;
        let HeaderPairs(headers) = headers.extract()?;
        self.send_body(token, status, &headers, body)?;
        Ok(true)
    }

    /// Answers a request or refuses a handshake with a body of bytes. Returns whether the client is still there.
    pub(crate) fn send_body<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        token: Token,
        status: u16,
        headers: &[(N, V)],
        body: &Bound<'_, PyBytes>,
    ) -> PyResult<bool> {
        let kept = kept(body);
        self.on_loop(body.py(), |engine| match kept {
            Some(kept) => engine.respond_kept(token, status, headers, kept),
            None => engine.respond(token, status, headers, body.as_bytes()),
        })
    }
}
