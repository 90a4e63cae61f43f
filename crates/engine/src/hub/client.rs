//! A client of the control socket: how other programs send commands and ask questions.
//!
//! Calls append to a buffer, and a thread writes its contents in batches. A single message is written at once. Those of
//! a loop of calls wait up to [`LINGER`] for one another, so that neither side pays for system calls and changes of
//! threads for each of them. A full buffer makes callers wait; it stays full while the hub, whose workers are slower than
//! we are, does not read. Answers are read by the thread that waits in [`Publisher::next_answer`].

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, mem, process, thread};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

use crate::language::message::{Answer, FrameBuffer, Message, Question, VERSION, content};
use crate::topics::options::matches;

/// Bytes that may wait to be written, or one longer message.
const ROOM: usize = 1024 * 1024;
/// How long messages that follow a batch at once wait for others. Questions do not wait: their callers do.
const LINGER: Duration = Duration::from_micros(50);
/// Bytes of a batch that does not wait for more.
const ENOUGH: usize = 64 * 1024;
/// The longest answer: the ids of ten million connections, with some to spare.
const MAX_ANSWER_BYTES: usize = 128 * 1024 * 1024;
/// The shortest timeout that the kernel accepts for a socket.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublisherError {
    /// Time ran out before there was room for the message, or before Hello was answered.
    TimedOut,
    /// There is no connection (any more), for this reason.
    Broken(String),
}

impl fmt::Display for PublisherError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => formatter.write_str("it did not respond in time"),
            Self::Broken(why) => formatter.write_str(why),
        }
    }
}

impl std::error::Error for PublisherError {}

impl From<io::Error> for PublisherError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The error kinds of a socket whose timeout has passed.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::NotFound => broken("there is no such socket"),
            io::ErrorKind::ConnectionRefused => broken("nothing is listening there"),
            io::ErrorKind::PermissionDenied => broken("it belongs to another user"),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                broken("it closed the connection")
            }
            _ => broken(&error.to_string()),
        }
    }
}

fn broken(why: &str) -> PublisherError {
    PublisherError::Broken(why.to_owned())
}

/// One connection to the hub. Every method may be called from any thread.
pub struct Publisher {
    line: Arc<Line>,
    /// Locked by the thread that waits for an answer.
    input: Mutex<FrameBuffer>,
    send_queue_size: usize,
    /// The patterns of topics with options, and whether their messages have an envelope.
    topics: Vec<(String, bool)>,
    process: u32,
    abandoned: AtomicBool,
}

/// The data that the callers share with the writing thread.
struct Line {
    stream: UnixStream,
    queue: Mutex<Queue>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    ended: Option<PublisherError>,
    /// There is a message that should not wait for others.
    urgent: bool,
    writer: Writer,
    callers_wait: bool,
}

/// What the writing thread does. Waking a thread is a system call, so it is done only if necessary.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Writer {
    #[default]
    Busy,
    /// It has nothing to write.
    Asleep,
    /// It waits for more to write.
    Lingering,
}

impl Queue {
    /// Whether the writing thread should write now rather than wait for more.
    fn is_due(&self) -> bool {
        self.urgent || self.callers_wait || self.bytes.len() >= ENOUGH || self.ended.is_some()
    }

    /// Whether the writing thread must be woken. If so, it counts as busy from now on.
    fn wakes_writer(&mut self) -> bool {
        let wakes = match self.writer {
            Writer::Busy => false,
            Writer::Asleep => true,
            Writer::Lingering => self.is_due(),
        };
        if wakes {
            self.writer = Writer::Busy;
        }
        wakes
    }
}

impl Publisher {
    /// Connects to the control socket at `path`, and waits for the welcome.
    ///
    /// # Errors
    /// If no server is listening, no answer arrives within `timeout`, or the server speaks another version of our
    /// language.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, PublisherError> {
        let deadline = Instant::now() + timeout;
        let mut stream = open(path, timeout)?;
        let mut hello = Vec::new();
        Message::Hello { version: VERSION }.encode(&mut hello);
        stream.write_all(&hello)?;
        let mut input = FrameBuffer::default();
        let welcome = loop {
            if let Some(frame) = next_frame(&mut input)? {
                break frame;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            stream.set_read_timeout(Some(left.max(SHORTEST_TIMEOUT)))?;
            read_some(&stream, &mut input)?;
        };
        let (send_queue_size, topics) = match Message::decode(content(input.frame(welcome))) {
            Ok(Message::Welcome { version: VERSION, send_queue_size, topics }) => {
                let topics = topics.into_iter().map(|(pattern, has_envelope)| (pattern.to_owned(), has_envelope));
                (send_queue_size as usize, topics.collect())
            }
            Ok(Message::Welcome { version, .. }) => {
                let why = format!(
                    "it runs another version of Hubbub: its control socket speaks version {version}, not {VERSION}"
                );
                return Err(PublisherError::Broken(why));
            }
            _ => return Err(not_hubbub()),
        };
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        let queue = Mutex::default();
        let line = Arc::new(Line { stream, queue, filled: Condvar::new(), emptied: Condvar::new() });
        let writer = Arc::clone(&line);
        thread::Builder::new().name("hubbub-publisher".to_owned()).spawn(move || writer.write())?;
        Ok(Self {
            line,
            input: Mutex::new(input),
            send_queue_size,
            topics,
            process: process::id(),
            abandoned: AtomicBool::new(false),
        })
    }

    /// The longest message that the server takes, in bytes.
    pub fn send_queue_size(&self) -> usize {
        self.send_queue_size
    }

    /// Whether the messages of a topic have an envelope, so that they must be text.
    pub fn has_envelope(&self, topic: &str) -> bool {
        self.topics.iter().find(|(pattern, _)| matches(pattern, topic)).is_some_and(|(_, has_envelope)| *has_envelope)
    }

    /// Sends a command or a question on its way, after everything sent before. The answer will carry the question's
    /// number.
    ///
    /// There is always room for [`Question::Flush`].
    ///
    /// # Errors
    /// If there was no room within `wait` (which may be zero), or the connection is broken. The message is not sent in
    /// either case.
    pub fn send(&self, message: &Message<'_>, wait: Duration) -> Result<(), PublisherError> {
        let bounded = !matches!(message, Message::Ask(_, _, Question::Flush));
        self.line.post(message, bounded.then_some(wait))
    }

    /// Waits for the next answer, and returns it with the number of its question.
    ///
    /// # Errors
    /// If the connection is broken, or has been closed: no more answers will arrive.
    pub fn next_answer(&self) -> Result<(u64, Answer), PublisherError> {
        let mut input = lock(&self.input);
        self.read_answer(&mut input).map_err(|error| self.line.end(error))
    }

    fn read_answer(&self, input: &mut FrameBuffer) -> Result<(u64, Answer), PublisherError> {
        loop {
            if let Some(frame) = next_frame(input)? {
                return match Message::decode(content(input.frame(frame))) {
                    Ok(Message::Answer(number, answer)) => Ok((number, answer)),
                    _ => Err(not_hubbub()),
                };
            }
            read_some(&self.line.stream, input)?;
        }
    }

    /// Ends the connection at once, and everything that waits for it. To make sure that everything sent has arrived,
    /// first ask [`Question::Flush`] and wait for the answer.
    pub fn close(&self) {
        self.line.end(broken("the connection has been closed"));
    }

    /// To be called in a forked child, which has a copy of the socket but none of the threads. Closes the copy, and
    /// touches nothing that could be locked. Nothing else may be called afterwards.
    pub fn abandon(&self) {
        if !self.abandoned.swap(true, Ordering::Relaxed) {
            // From now on the line is never dropped, no matter which other owners drop it.
            mem::forget(Arc::clone(&self.line));
            // SAFETY: the descriptor is open, since the line still exists, and nothing else will close it, since the
            // line is never dropped and no part of it is used any more.
            drop(unsafe { OwnedFd::from_raw_fd(self.line.stream.as_raw_fd()) });
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if process::id() == self.process {
            self.close();
        } else {
            self.abandon();
        }
    }
}

impl Line {
    /// Queues a message. If `wait` is `None`, it is queued no matter how much is already waiting.
    fn post(&self, message: &Message<'_>, wait: Option<Duration>) -> Result<(), PublisherError> {
        let mut deadline = None;
        let mut queue = lock(&self.queue);
        loop {
            if let Some(error) = &queue.ended {
                return Err(error.clone());
            }
            let before = queue.bytes.len();
            message.encode(&mut queue.bytes);
            let Some(wait) = wait else { break };
            if before == 0 || queue.bytes.len() <= ROOM {
                break;
            }
            queue.bytes.truncate(before);
            let now = Instant::now();
            let left = deadline.get_or_insert(now + wait).saturating_duration_since(now);
            if left.is_zero() {
                return Err(PublisherError::TimedOut);
            }
            queue.callers_wait = true;
            if queue.wakes_writer() {
                self.filled.notify_one();
            }
            queue = self.emptied.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.urgent |= matches!(message, Message::Ask(..));
        if queue.wakes_writer() {
            drop(queue);
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Writes everything that is queued, until the connection ends.
    fn write(&self) {
        let mut batch = Vec::new();
        let mut written = None;
        while self.next_batch(&mut batch, written) {
            if let Err(error) = (&self.stream).write_all(&batch) {
                self.end(error.into());
            }
            written = Some(Instant::now());
            batch.clear();
            batch.shrink_to(2 * ROOM);
        }
    }

    /// Waits for something to write, and for more if the last batch was `written` just before; swaps an empty buffer for
    /// it. Returns false if the connection has ended.
    fn next_batch(&self, batch: &mut Vec<u8>, written: Option<Instant>) -> bool {
        let mut queue = lock(&self.queue);
        while queue.bytes.is_empty() && queue.ended.is_none() {
            queue.writer = Writer::Asleep;
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if written.is_some_and(|at| at.elapsed() < LINGER) {
            queue.writer = Writer::Lingering;
            let waited = self.filled.wait_timeout_while(queue, LINGER, |queue| !queue.is_due());
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.writer = Writer::Busy;
        queue.urgent = false;
        mem::swap(batch, &mut queue.bytes);
        if mem::take(&mut queue.callers_wait) {
            self.emptied.notify_all();
        }
        queue.ended.is_none()
    }

    /// Ends everything with an error. Returns the first such error, which is the one that counts.
    fn end(&self, error: PublisherError) -> PublisherError {
        let mut queue = lock(&self.queue);
        let first = queue.ended.get_or_insert(error).clone();
        queue.bytes = Vec::new();
        drop(queue);
        // This wakes threads that are reading or writing. It fails only if the other end is already gone.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.filled.notify_all();
        self.emptied.notify_all();
        first
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects. Unlike the standard library's function, it does not wait forever if the server's queue is full.
fn open(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    // This is also the timeout of connect (unix(7) says so for Linux; elsewhere connect does not wait).
    set_socket_timeout(&socket, Timeout::Send, Some(timeout.max(SHORTEST_TIMEOUT)))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

fn next_frame(input: &mut FrameBuffer) -> Result<Option<std::ops::Range<usize>>, PublisherError> {
    input.next_frame(MAX_ANSWER_BYTES).map_err(|_| not_hubbub())
}

fn not_hubbub() -> PublisherError {
    broken("it is not a Hubbub server")
}

/// Reads once.
///
/// # Errors
/// Those of the stream; its end counts as one.
fn read_some(mut stream: &UnixStream, input: &mut FrameBuffer) -> io::Result<()> {
    loop {
        match stream.read(input.room()) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                input.filled(count);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::sync::atomic::AtomicUsize;
    use std::thread::JoinHandle;

    use wire::frame::DataOpcode;

    use super::*;
    use crate::language::command::Command;

    const SECONDS: Duration = Duration::from_secs(20);

    /// Runs `serve` with the client that connects to the returned path.
    fn hub<T: Send + 'static>(serve: impl FnOnce(Peer) -> T + Send + 'static) -> (Socket, JoinHandle<T>) {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("hubbub-publisher-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).expect("a socket");
        let thread = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a publisher");
            serve(Peer { stream, input: FrameBuffer::default() })
        });
        (Socket(path), thread)
    }

    /// A socket file that is removed again.
    struct Socket(PathBuf);

    impl Drop for Socket {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    struct Peer {
        stream: UnixStream,
        input: FrameBuffer,
    }

    impl Peer {
        fn receive(&mut self) -> Option<Vec<u8>> {
            loop {
                if let Some(frame) = self.input.next_frame(usize::MAX).expect("a frame") {
                    return Some(content(self.input.frame(frame)).to_vec());
                }
                read_some(&self.stream, &mut self.input).ok()?;
            }
        }

        fn send(&mut self, message: &Message<'_>) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            self.stream.write_all(&bytes).expect("written");
        }

        fn welcome(&mut self) {
            let hello = self.receive().expect("Hello");
            assert_eq!(Message::decode(&hello), Ok(Message::Hello { version: VERSION }));
            self.send(&Message::Welcome { version: VERSION, send_queue_size: 1000, topics: Vec::new() });
        }
    }

    fn broadcast(payload: &[u8]) -> Message<'_> {
        Message::Command(Command::Broadcast { opcode: DataOpcode::Binary, payload, exclude: Cow::Borrowed(&[]) })
    }

    #[test]
    fn commands_and_questions_arrive_in_the_order_of_the_calls() {
        let (socket, hub) = hub(|mut peer| {
            peer.welcome();
            for number in 0..10_000_u64 {
                let command = peer.receive().expect("a command");
                assert_eq!(Message::decode(&command), Ok(broadcast(&number.to_le_bytes())));
                let question = peer.receive().expect("a question");
                assert_eq!(Message::decode(&question), Ok(Message::Ask(number, SECONDS, Question::Info(number))));
            }
            peer.send(&Message::Answer(9_999, Answer::Info(None)));
            peer.receive()
        });
        let publisher = Publisher::connect(&socket.0, SECONDS).expect("connected");
        assert_eq!(publisher.send_queue_size(), 1000);
        for number in 0..10_000_u64 {
            publisher.send(&broadcast(&number.to_le_bytes()), SECONDS).expect("sent");
            publisher.send(&Message::Ask(number, SECONDS, Question::Info(number)), SECONDS).expect("asked");
        }
        assert_eq!(publisher.next_answer(), Ok((9_999, Answer::Info(None))));
        drop(publisher);
        assert_eq!(hub.join().expect("no panic"), None);
    }

    #[test]
    fn a_hub_that_does_not_read_lets_callers_wait() {
        let (go_on, wait) = std::sync::mpsc::channel();
        let (socket, hub) = hub(move |mut peer| {
            peer.welcome();
            wait.recv().expect("told");
            let commands = std::iter::from_fn(|| peer.receive()).take_while(|content| content.len() > 100_000);
            commands.count()
        });
        let publisher = Publisher::connect(&socket.0, SECONDS).expect("connected");
        let payload = vec![0; 100_000];
        let mut sent = 0;
        let refusal = loop {
            match publisher.send(&broadcast(&payload), Duration::from_millis(100)) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent < 1000, "nothing bounds it");
        };
        assert_eq!(refusal, PublisherError::TimedOut);
        go_on.send(()).expect("the hub waits");
        publisher.send(&broadcast(&payload), SECONDS).expect("there is room again");
        publisher.send(&Message::Ask(1, SECONDS, Question::Flush), Duration::ZERO).expect("asked");
        assert_eq!(hub.join().expect("no panic"), sent + 1);
    }

    #[test]
    fn messages_in_quick_succession_are_written_together() {
        const COUNT: u32 = 5_000;
        let (socket, hub) = hub(|mut peer| {
            peer.welcome();
            let mut reads = 0;
            for _ in 0..COUNT {
                while peer.input.next_frame(usize::MAX).expect("a frame").is_none() {
                    read_some(&peer.stream, &mut peer.input).expect("a message");
                    reads += 1;
                }
            }
            reads
        });
        let publisher = Publisher::connect(&socket.0, SECONDS).expect("connected");
        let start = Instant::now();
        for number in 0..COUNT {
            // As a loop in Python does; a quicker one would fill batches by itself.
            while start.elapsed() < number * Duration::from_micros(10) {}
            publisher.send(&broadcast(b"!"), SECONDS).expect("sent");
        }
        let reads = hub.join().expect("no panic");
        // Each batch either waited for others or was long, and the hub may read a long one in pieces.
        let most = start.elapsed().as_micros() / LINGER.as_micros() + 100;
        assert!(reads <= most, "{reads} reads, at most {most} were expected");
    }

    #[test]
    fn a_writer_that_waits_for_more_is_woken_by_a_question_or_by_much() {
        let question = Message::Ask(1, SECONDS, Question::Info(1));
        let much = [b'!'; ENOUGH];
        for (what, message, wakes) in [
            ("a short message", broadcast(b"!"), false),
            ("a question", question, true),
            ("a long message", broadcast(&much), true),
        ] {
            let (stream, _peer) = UnixStream::pair().expect("sockets");
            let queue = Mutex::new(Queue { writer: Writer::Lingering, ..Queue::default() });
            let line = Line { stream, queue, filled: Condvar::new(), emptied: Condvar::new() };
            line.post(&message, Some(Duration::ZERO)).expect("queued");
            assert_eq!(lock(&line.queue).writer == Writer::Busy, wakes, "{what}");
            assert_eq!(lock(&line.queue).is_due(), wakes, "{what}");
        }
    }

    #[test]
    fn a_message_longer_than_the_buffer_goes_alone() {
        let (socket, hub) = hub(|mut peer| {
            peer.welcome();
            peer.receive().expect("a command").len()
        });
        let publisher = Publisher::connect(&socket.0, SECONDS).expect("connected");
        publisher.send(&broadcast(&vec![0; 3 * ROOM]), Duration::ZERO).expect("sent");
        assert!(hub.join().expect("no panic") > 3 * ROOM);
    }

    #[test]
    fn the_end_of_the_connection_fails_what_waits_and_all_later_calls() {
        let (socket, hub) = hub(|mut peer| {
            peer.welcome();
            peer.receive();
        });
        let publisher = Publisher::connect(&socket.0, SECONDS).expect("connected");
        let error = Err(broken("it closed the connection"));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| publisher.next_answer());
            publisher.send(&Message::Ask(1, SECONDS, Question::Stats), SECONDS).expect("asked");
            assert_eq!(waiting.join().expect("no panic").map(drop), error);
        });
        assert_eq!(publisher.send(&broadcast(b""), SECONDS), error);
        assert_eq!(publisher.next_answer().map(drop), error);
        hub.join().expect("no panic");
    }

    #[test]
    fn closing_wakes_whoever_waits() {
        let (socket, hub) = hub(|mut peer| {
            peer.welcome();
            peer.receive()
        });
        let publisher = Publisher::connect(&socket.0, SECONDS).expect("connected");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| publisher.next_answer());
            publisher.close();
            assert_eq!(waiting.join().expect("no panic").map(drop), Err(broken("the connection has been closed")));
        });
        assert_eq!(hub.join().expect("no panic"), None);
    }

    #[test]
    fn what_is_no_server_of_this_version_is_refused() {
        let answers = [
            (Message::Welcome { version: VERSION + 1, send_queue_size: 0, topics: Vec::new() }, "another version"),
            (Message::Ready, "not a Hubbub server"),
        ];
        for (answer, said) in answers {
            let (socket, hub) = hub(move |mut peer| {
                // Closing with this unread would break the connection, and the answer might be lost.
                peer.receive();
                peer.send(&answer);
            });
            let refusal = Publisher::connect(&socket.0, SECONDS).err().expect("refused");
            assert!(refusal.to_string().contains(said), "{refusal}");
            hub.join().expect("no panic");
        }
    }

    #[test]
    fn nobody_there_and_nobody_who_answers_are_told_apart() {
        let nowhere = Publisher::connect(Path::new("no/such/socket"), SECONDS).err();
        assert_eq!(nowhere, Some(broken("there is no such socket")));
        let (socket, hub) = hub(|mut peer| while peer.receive().is_some() {});
        let silent = Publisher::connect(&socket.0, Duration::from_millis(10)).err();
        assert_eq!(silent, Some(PublisherError::TimedOut));
        hub.join().expect("no panic");
    }
}
