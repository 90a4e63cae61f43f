//! A `redis-server` of the test's own.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{self, AddressFamily, SocketType};
use rustix::process::{Pid, Signal, kill_process};

use super::LONG;

/// See the module documentation. It is killed at the end.
pub(crate) struct Server {
    process: Child,
    pub(crate) directory: PathBuf,
    pub(crate) port: u16,
    /// 0 without TLS.
    pub(crate) tls_port: u16,
    arguments: Vec<String>,
}

/// A port that nobody uses. On Linux nobody else is given it as long as this process runs: a socket stays bound to it,
/// which does not hinder a server, because both may reuse addresses.
pub(crate) fn free_port() -> u16 {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    fcntl_setfd(&socket, FdFlags::CLOEXEC).expect("a socket that is not inherited");
    net::sockopt::set_socket_reuseaddr(&socket, true).expect("an address that may be reused");
    net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = net::getsockname(&socket).expect("an address");
    if cfg!(target_os = "linux") {
        std::mem::forget(socket);
    }
    SocketAddr::try_from(address).expect("an address of the internet").port()
}

impl Server {
    /// Starts one; `None` if there is none installed. `{dir}` in an argument is its directory; spaces separate arguments.
    pub(crate) fn start(arguments: &[&str]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("hubbub-redis-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        Self::start_in(directory, free_port(), arguments)
    }

    pub(crate) fn start_in(directory: PathBuf, port: u16, arguments: &[&str]) -> Option<Self> {
        let words = arguments.iter().flat_map(|argument| argument.split(' '));
        let arguments: Vec<_> = words.map(|word| word.replace("{dir}", &directory.to_string_lossy())).collect();
        let process = Self::spawn(&directory, port, &arguments)?;
        let server = Self { process, directory, port, tls_port: 0, arguments };
        server.wait_until_it_listens();
        Some(server)
    }

    fn spawn(directory: &PathBuf, port: u16, arguments: &[String]) -> Option<Child> {
        let mut command = Command::new("redis-server");
        // The file of a configuration comes first.
        let (files, options): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.ends_with(".conf"));
        command.args(files).args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"]);
        command.arg(directory).args(options);
        match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(process) => Some(process),
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "redis-server cannot be started: {error}");
                eprintln!("not run: redis-server cannot be started: {error}");
                None
            }
        }
    }

    fn wait_until_it_listens(&self) {
        let until = Instant::now() + LONG;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, signal).expect("it runs");
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts it again, without its data.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.process = Self::spawn(&self.directory, self.port, &self.arguments).expect("it was there before");
        self.wait_until_it_listens();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
