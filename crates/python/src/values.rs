//! Information about connections and workers, as plain Python values.

use std::time::Duration;

use engine::{
    Answer, BrokerMetrics, COUNTS, Content, Counts, Held, History, HostInfo, Info, Joined, Metrics, OldMessage, Page,
    Position, Stats, Times,
};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes, PyDict, PyList, PyString, PyTuple};

/// The values of a `hubbub.ConnectionInfo`, in their order.
pub(crate) fn info_tuple<'py>(py: Python<'py>, worker_id: u8, info: &Info) -> PyResult<Bound<'py, PyTuple>> {
    let values = [
        info.fd.into_bound_py_any(py)?,
        worker_id.into_bound_py_any(py)?,
        (info.client.ip().to_string(), info.client.port()).into_bound_py_any(py)?,
        info.path.as_str().into_bound_py_any(py)?,
        info.topics.into_bound_py_any(py)?,
        seconds(info.opened_at).into_bound_py_any(py)?,
        seconds(info.last_received_at).into_bound_py_any(py)?,
        info.latency.map(|latency| latency.as_secs_f64()).into_bound_py_any(py)?,
        info.messages_in.into_bound_py_any(py)?,
        info.messages_out.into_bound_py_any(py)?,
        info.bytes_in.into_bound_py_any(py)?,
        info.bytes_out.into_bound_py_any(py)?,
        info.queued_bytes.into_bound_py_any(py)?,
    ];
    PyTuple::new(py, values)
}

/// A `hubbub.listing.Page`.
pub(crate) fn page_tuple<'py, T: IntoPyObject<'py>>(py: Python<'py>, page: Page<T>) -> PyResult<Bound<'py, PyAny>> {
    (page.entries, page.goes_on).into_bound_py_any(py)
}

/// Hosts, as numbers, names, Unix seconds of their start, numbers of connections, and seconds since they were heard from.
pub(crate) fn host_tuples<'py>(py: Python<'py>, hosts: Vec<HostInfo>) -> PyResult<Bound<'py, PyAny>> {
    let values = |host: HostInfo| {
        let age = Duration::from_millis(host.age).as_secs_f64();
        (host.number, String::from(host.name), seconds(host.started_at), host.connections, age)
    };
    hosts.into_iter().map(values).collect::<Vec<_>>().into_bound_py_any(py)
}

/// The answers of hosts, each with its number; and the numbers of those that have not answered in time.
pub(crate) fn everywhere_tuple<'py>(
    py: Python<'py>,
    answers: Vec<(u8, Answer)>,
    silent: Vec<u8>,
) -> PyResult<Bound<'py, PyAny>> {
    let values = answers.into_iter().map(|(host, answer)| {
        let value = match answer {
            Answer::Count(count) => count.into_bound_py_any(py)?,
            Answer::Topics(page) => page_tuple(py, page)?,
            Answer::Members(page) => page_tuple(py, page)?,
            Answer::Stats(stats) => stats_dict(py, &stats)?.into_bound_py_any(py)?,
            Answer::Connections(ids) => ids.into_bound_py_any(py)?,
            Answer::Info(Some((worker_id, info))) => info_tuple(py, worker_id, &info)?.into_bound_py_any(py)?,
            _ => py.None().into_bound_py_any(py)?,
        };
        Ok((host, value))
    });
    let silent: Vec<u32> = silent.into_iter().map(u32::from).collect();
    (values.collect::<PyResult<Vec<_>>>()?, silent).into_bound_py_any(py)
}

/// Says that a host, or the broker, has not answered.
pub(crate) fn silent_host(host: u8) -> PyErr {
    PyTimeoutError::new_err(match host {
        0 => "the broker did not answer in time, or refused to; the log says which".to_owned(),
        host => format!("host {host} did not answer in time"),
    })
}

/// Messages that a topic has kept, as offsets, data and times in Unix seconds; the topic's epoch and offset; and whether
/// more follow.
pub(crate) fn history_tuple<'py>(py: Python<'py>, history: &History) -> PyResult<Bound<'py, PyAny>> {
    let messages = PyList::empty(py);
    for OldMessage { offset, unix, content, payload, .. } in &history.messages {
        let data = match std::str::from_utf8(payload) {
            Ok(text) if *content != Content::Binary => PyString::new(py, text).into_any(),
            _ => PyBytes::new(py, payload).into_any(),
        };
        messages.append((offset, data, seconds(*unix)))?;
    }
    let (epoch, offset) = position_values(history.position);
    (messages, epoch, offset, history.goes_on).into_bound_py_any(py)
}

/// Whether everything was recovered, how many old messages were sent, and the epoch and offset behind them.
pub(crate) fn joined_tuple(py: Python<'_>, joined: Joined) -> PyResult<Bound<'_, PyAny>> {
    let (epoch, offset) = position_values(joined.position);
    (joined.recovered, joined.count, epoch, offset).into_bound_py_any(py)
}

fn position_values(position: Position) -> (String, u64) {
    (position.epoch_text(), position.offset)
}

/// The dict of `hubbub.Server.stats`.
pub(crate) fn stats_dict<'py>(py: Python<'py>, stats: &Stats) -> PyResult<Bound<'py, PyDict>> {
    let dict = counts_dict(py, &stats.totals, stats.started_at)?;
    let workers = PyList::empty(py);
    for worker in &stats.workers {
        let counts = counts_dict(py, &worker.counts, worker.started_at)?;
        counts.set_item("worker_id", worker.worker_id)?;
        workers.append(counts)?;
    }
    dict.set_item("workers", workers)?;
    Ok(dict)
}

/// The dict for `hubbub.metrics`: `stats` as in [`stats_dict`]; `closed` and `refused`, counts by close code and
/// status; `closed_for_memory`, counts by what was held; `stuck`, whether each worker is stuck, by its id; `turns` and
/// `handlers`, each a list of (upper bound in seconds, count) and the sum in seconds.
pub(crate) fn metrics_dict<'py>(py: Python<'py>, metrics: &Metrics) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("stats", stats_dict(py, &metrics.stats)?)?;
    dict.set_item("closed", metrics.closed().collect::<Vec<_>>().into_py_dict(py)?)?;
    dict.set_item("refused", metrics.refused().collect::<Vec<_>>().into_py_dict(py)?)?;
    dict.set_item("stuck", metrics.stuck.iter().copied().into_py_dict(py)?)?;
    dict.set_item("closed_for_memory", metrics.closed_for_memory().map(named).collect::<Vec<_>>().into_py_dict(py)?)?;
    let broker = metrics.broker.map(|BrokerMetrics { is_up, losses, hosts }| (is_up, losses, hosts));
    dict.set_item("broker", broker)?;
    for (name, Times { buckets, sum }) in [("turns", metrics.turns()), ("handlers", metrics.handlers())] {
        dict.set_item(name, (buckets, sum))?;
    }
    Ok(dict)
}

fn named((held, count): (Held, u64)) -> (&'static str, u64) {
    let name = match held {
        Held::Output => "output",
        Held::Input => "input",
        Held::Body => "body",
    };
    (name, count)
}

fn counts_dict<'py>(py: Python<'py>, counts: &Counts, started_at: u64) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, count) in COUNTS.iter().zip(counts) {
        dict.set_item(name, count)?;
    }
    dict.set_item("started_at", seconds(started_at))?;
    Ok(dict)
}

/// Converts milliseconds of Unix time to seconds.
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}
