//! Reads the engine's settings from the Python `Settings`, which has checked them.

use std::path::PathBuf;
use std::time::Duration;

use engine::{BrokerSettings, CertificateFiles, Endpoints, Password, RedisAddress, Settings, SlowConsumer, TopicRules};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use wire::host::HostPolicy;
use wire::network::Networks;
use wire::origin::OriginPolicy;

/// Reads the files that TLS needs as the reactor will, if the settings name any.
///
/// Raises:
///     ValueError: They cannot be used. The message is one line with the setting, the file and the reason.
#[pyfunction]
pub(crate) fn check_certificates(settings: &Bound<'_, PyAny>) -> PyResult<()> {
    certificate(settings)?.map_or(Ok(()), |files| files.check().map_err(PyValueError::new_err))
}

/// The files that TLS needs, if the server speaks it.
///
/// # Errors
/// As for `read`.
fn certificate(settings: &Bound<'_, PyAny>) -> PyResult<Option<CertificateFiles>> {
    let path = |name: &str| settings.getattr(name)?.extract::<Option<PathBuf>>();
    let ca_certs = path("ssl_ca_certs")?;
    let keyfile_password = settings.getattr("ssl_keyfile_password")?.extract::<Option<String>>()?.map(Password::new);
    let files = path("ssl_certfile")?.zip(path("ssl_keyfile")?);
    Ok(files.map(|(certfile, keyfile)| CertificateFiles { certfile, keyfile, keyfile_password, ca_certs }))
}

/// The settings of a worker whose connections may hold `max_memory` bytes together.
///
/// # Errors
/// If an attribute is missing or has another type, so that this is not a `hubbub.Settings`.
pub(crate) fn read(settings: &Bound<'_, PyAny>, max_memory: usize) -> PyResult<Settings> {
    let size = |name: &str| settings.getattr(name)?.extract::<usize>();
    let seconds = |name: &str| settings.getattr(name)?.extract::<f64>().map(Duration::from_secs_f64);
    let maybe_seconds =
        |name: &str| settings.getattr(name)?.extract::<Option<f64>>().map(|value| value.map(Duration::from_secs_f64));
    let allowed_hosts = match settings.getattr("allowed_hosts")?.extract::<Option<Vec<String>>>()? {
        None => HostPolicy::Any,
        Some(hosts) => HostPolicy::parse_list(&hosts).map_err(|error| PyValueError::new_err(error.to_string()))?,
    };
    let proxy_protocol = match settings.getattr("proxy_protocol")?.extract()? {
        true => {
            let proxies: Vec<String> = settings.getattr("trusted_networks")?.extract()?;
            let proxies = Networks::parse_list(&proxies);
            Some(proxies.map_err(|error| PyValueError::new_err(error.to_string()))?)
        }
        false => None,
    };
    let slow_consumer: String = settings.getattr("slow_consumer")?.extract()?;
    Ok(Settings {
        max_connections: size("max_connections")?,
        max_message_size: size("max_message_size")?,
        send_queue_size: size("send_queue_size")?,
        slow_consumer: if slow_consumer == "drop" { SlowConsumer::Drop } else { SlowConsumer::Close },
        max_memory,
        max_topics: size("max_topics")?,
        receive_queue: size("receive_queue")?,
        ping_interval: maybe_seconds("ping_interval")?,
        ping_timeout: maybe_seconds("ping_timeout")?,
        message_timeout: maybe_seconds("message_timeout")?,
        idle_timeout: maybe_seconds("idle_timeout")?,
        handshake_timeout: seconds("handshake_timeout")?,
        close_timeout: seconds("close_timeout")?,
        keep_alive_timeout: seconds("keep_alive_timeout")?,
        origins: origins(settings)?,
        allowed_hosts,
        subprotocols: settings.getattr("subprotocols")?.extract()?,
        compression: settings.getattr("compression")?.extract()?,
        compression_threshold: size("compression_threshold")?,
        max_header_size: size("max_header_size")?,
        max_body_size: settings.getattr("max_body_size")?.extract::<Option<usize>>()?.unwrap_or(usize::MAX),
        stuck_after: maybe_seconds("stuck_after")?,
        proxy_protocol,
        certificate: certificate(settings)?,
        endpoints: Endpoints::default(),
        topics: TopicRules::default(),
        history_memory: size("history_memory")?,
        broker: broker(settings)?,
    })
}

/// The broker of several hosts, if there is one. Its name of this host is empty.
///
/// # Errors
/// As for `read`.
fn broker(settings: &Bound<'_, PyAny>) -> PyResult<Option<BrokerSettings>> {
    let Some(url) = settings.getattr("broker")?.extract::<Option<String>>()? else { return Ok(None) };
    Ok(Some(BrokerSettings {
        address: RedisAddress::parse(&url).map_err(PyValueError::new_err)?,
        prefix: settings.getattr("broker_prefix")?.extract()?,
        queue_size: settings.getattr("broker_queue_size")?.extract()?,
        name: String::new(),
    }))
}

/// Where the broker is that a URL names, for people: without a password.
///
/// Raises:
///     ValueError: The URL is wrong. The message says why, and repeats no part of it that may be a secret.
#[pyfunction]
pub(crate) fn broker_address(url: &str) -> PyResult<String> {
    let address = RedisAddress::parse(url);
    let without_name = |error: String| PyValueError::new_err(error.trim_start_matches("broker: ").to_owned());
    address.map(|address| address.to_string()).map_err(without_name)
}

/// Which pages may connect.
///
/// # Errors
/// As for `read`.
pub(crate) fn origins(settings: &Bound<'_, PyAny>) -> PyResult<OriginPolicy> {
    let origins: Vec<String> = settings.getattr("allowed_origins")?.extract()?;
    if origins == ["same"] {
        return Ok(OriginPolicy::Same);
    }
    OriginPolicy::parse_list(&origins).map_err(|error| PyValueError::new_err(error.to_string()))
}
