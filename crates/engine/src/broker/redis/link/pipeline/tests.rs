use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A pipeline, and the time.
struct Line {
    pipeline: Pipeline,
    now: Instant,
}

impl Line {
    fn new() -> Self {
        Self { pipeline: Pipeline::default(), now: Instant::now() }
    }

    /// Adds a command of some letters, which may wait for some seconds.
    fn add(&mut self, tag: u64, letters: &str, patience: u32) {
        let order = Order { tag, size: letters.len() as u32, deadline: self.now + patience * SECOND };
        self.pipeline.append(&mut letters.as_bytes().to_vec(), &mut vec![order]);
    }

    fn next(&self) -> &str {
        std::str::from_utf8(self.pipeline.next()).expect("letters")
    }

    fn expired(&mut self) -> Vec<u64> {
        let mut tags = Vec::new();
        self.pipeline.expire(self.now, |tag, _| tags.push(tag));
        tags
    }

    fn lost(&mut self) -> Vec<u64> {
        let mut tags = Vec::new();
        self.pipeline.lose(|tag, _| tags.push(tag));
        tags
    }

    fn answered(&mut self) -> Option<u64> {
        match self.pipeline.answered()? {
            Sent::Ordered { tag, .. } => Some(tag),
            Sent::Own => Some(0),
        }
    }
}

#[test]
fn replies_belong_to_the_commands_in_their_order() {
    let mut line = Line::new();
    line.add(1, "one", 1);
    line.add(2, "two", 1);
    assert_eq!(line.next(), "onetwo");
    line.pipeline.sent(4);
    assert_eq!(line.next(), "wo");
    assert!(line.pipeline.awaits_reply());
    line.add(3, "three", 1);
    line.pipeline.sent(7);
    assert_eq!((line.answered(), line.answered(), line.answered(), line.answered()), (Some(1), Some(2), Some(3), None));
    assert!(line.pipeline.is_idle());
}

#[test]
fn what_was_sent_in_part_is_lost_with_the_connection_and_the_rest_waits() {
    let mut line = Line::new();
    line.add(1, "one", 1);
    line.add(2, "two", 1);
    line.add(3, "three", 1);
    line.pipeline.sent(4);
    assert_eq!(line.lost(), [1, 2]);
    assert_eq!(line.next(), "three");
    line.pipeline.sent(5);
    assert_eq!(line.answered(), Some(3));
}

#[test]
fn commands_that_have_waited_too_long_are_not_sent() {
    let mut line = Line::new();
    line.add(1, "one", 1);
    line.add(2, "two", 2);
    line.now += SECOND;
    line.add(3, "three", 2);
    assert_eq!(line.pipeline.next_expiry(), Some(line.now));
    assert_eq!(line.expired(), [1]);
    assert_eq!(line.next(), "twothree");
    line.now += 2 * SECOND;
    assert_eq!(line.expired(), [2, 3]);
    assert_eq!((line.next(), line.pipeline.next_expiry()), ("", None));
}

#[test]
fn commands_may_expire_in_any_order() {
    let mut line = Line::new();
    line.add(1, "one", 9);
    line.add(2, "two", 1);
    line.add(3, "three", 9);
    line.add(4, "four", 1);
    line.pipeline.sent(1);
    line.now += SECOND;
    assert_eq!(line.expired(), [2, 4]);
    assert_eq!(line.next(), "nethree");
    line.pipeline.sent(7);
    assert_eq!((line.answered(), line.answered()), (Some(1), Some(3)));
}

#[test]
fn what_was_begun_is_sent_to_its_end_although_it_expires() {
    let mut line = Line::new();
    line.add(1, "one", 1);
    line.pipeline.sent(1);
    line.add(2, "two", 1);
    line.now += 5 * SECOND;
    assert_eq!(line.expired(), [2]);
    assert_eq!(line.next(), "ne");
}

#[test]
fn commands_of_the_links_own_go_first_but_not_into_another() {
    let mut line = Line::new();
    line.add(1, "one", 1);
    line.add(2, "two", 1);
    line.pipeline.sent(1);
    line.pipeline.append_own(&[b"P"]);
    assert_eq!(line.next(), "ne");
    line.pipeline.sent(1);
    line.pipeline.sent(1);
    assert_eq!(line.next(), "*1\r\n$1\r\nP\r\n");
    line.pipeline.sent(3);
    assert_eq!(line.next(), "\n$1\r\nP\r\n");
    line.pipeline.sent(8);
    assert_eq!(line.next(), "two");
    line.pipeline.sent(3);
    assert_eq!((line.answered(), line.answered(), line.answered()), (Some(1), Some(0), Some(2)));
}

#[test]
fn a_command_of_the_links_own_is_lost_silently() {
    let mut line = Line::new();
    line.add(1, "one", 1);
    line.pipeline.append_own(&[b"P"]);
    line.pipeline.sent(3);
    assert_eq!(line.lost(), [0; 0]);
    assert_eq!(line.next(), "one");
    assert!(!line.pipeline.awaits_reply());
}

#[test]
fn a_pipeline_that_is_never_empty_does_not_grow() {
    let mut line = Line::new();
    line.add(0, "0123456789", 1);
    for tag in 1..100_000 {
        line.add(tag, "0123456789", 1);
        line.pipeline.sent(10);
        assert_eq!(line.answered(), Some(tag - 1));
    }
    assert!(line.pipeline.bytes.capacity() < 1000, "{}", line.pipeline.bytes.capacity());
}
