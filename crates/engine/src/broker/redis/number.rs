//! The file that keeps a host's number, and the token that it was claimed with, over a restart.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use super::lease::Token;

/// Longer than any content.
const MAX_LENGTH: usize = 64;

/// See the module documentation.
pub(super) struct NumberFile(Option<File>);

impl NumberFile {
    pub(super) fn new(file: Option<OwnedFd>) -> Self {
        Self(file.map(File::from))
    }

    /// What was written last, as far as it can be read. Without it a host gets another number, which is no harm.
    pub(super) fn read(&self) -> Option<(u8, Token)> {
        let mut content = [0; MAX_LENGTH];
        let length = self.0.as_ref()?.read_at(&mut content, 0).ok()?;
        let line = str::from_utf8(&content[..length]).ok()?.strip_suffix('\n')?;
        let (number, token) = line.split_once(' ')?;
        let number = number.parse().ok().filter(|number| *number != 0)?;
        Some((number, Token::parse(token)?))
    }

    /// # Errors
    /// If the file cannot be written.
    pub(super) fn write(&self, number: u8, token: &Token) -> io::Result<()> {
        let Some(file) = &self.0 else { return Ok(()) };
        // All lines have one length, so there is never a rest of an earlier one.
        let line = format!("{number:03} {}\n", token.text());
        file.write_all_at(line.as_bytes(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> NumberFile {
        let memory = rustix::fs::memfd_create("number", rustix::fs::MemfdFlags::CLOEXEC).expect("a file");
        let file = NumberFile::new(Some(memory));
        file.0.as_ref().expect("a file").write_all_at(content, 0).expect("written");
        file
    }

    #[test]
    fn what_was_written_last_is_read() {
        let file = file(b"");
        assert_eq!(file.read(), None);
        for number in [200, 7] {
            let token = Token::new(u128::from(number) << 100);
            file.write(number, &token).expect("written");
            assert_eq!(file.read(), Some((number, token)));
        }
        assert_eq!(NumberFile::new(None).read(), None);
        assert!(NumberFile::new(None).write(1, &Token::new(1)).is_ok());
    }

    #[test]
    fn a_damaged_file_is_no_number() {
        let token = Token::new(5).text().to_owned();
        for damaged in
            ["garbage", "\n", "000 5\n", &format!("000 {token}\n"), &format!("256 {token}\n"), &format!("007 {token}")]
        {
            assert_eq!(file(damaged.as_bytes()).read(), None, "{damaged:?}");
        }
        assert_eq!(file(&[0xff; 40]).read(), None);
    }
}
