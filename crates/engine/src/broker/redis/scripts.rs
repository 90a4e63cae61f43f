//! The scripts: what has to happen at once in Redis. They are in the files `scripts/*.lua`.

use std::time::Duration;

use super::link::Link;
use super::tag::{Purpose, Tag};

/// See the module documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Script {
    Publish,
    Read,
    Forget,
    Reset,
    Greet,
    Join,
    Leave,
    Members,
    Claim,
    Renew,
    Raise,
    Clear,
    Look,
    Sweep,
    Release,
}

macro_rules! script {
    ($($file:literal),+) => { concat!($(include_str!(concat!("scripts/", $file, ".lua")), "\n"),+) };
}

impl Script {
    pub(super) const ALL: [Self; 15] = [
        Self::Publish,
        Self::Read,
        Self::Forget,
        Self::Reset,
        Self::Greet,
        Self::Join,
        Self::Leave,
        Self::Members,
        Self::Claim,
        Self::Renew,
        Self::Raise,
        Self::Clear,
        Self::Look,
        Self::Sweep,
        Self::Release,
    ];

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Publish => script!("topic", "publish"),
            Self::Read => script!("topic", "read"),
            Self::Forget => script!("topic", "forget"),
            Self::Reset => script!("topic", "reset"),
            Self::Greet => script!("greet"),
            Self::Join => script!("join"),
            Self::Leave => script!("leave"),
            Self::Members => script!("members"),
            Self::Claim => script!("host", "claim"),
            Self::Renew => script!("host", "renew"),
            Self::Raise => script!("host", "raise"),
            Self::Clear => script!("host", "clear"),
            Self::Look => script!("host", "look"),
            Self::Sweep => script!("host", "sweep"),
            Self::Release => script!("host", "release"),
        }
    }
}

/// How Redis calls the scripts that it has: it tells when it loads them.
#[derive(Default)]
pub(super) struct Scripts {
    digests: [Option<Box<[u8]>>; Script::ALL.len()],
}

impl Scripts {
    /// Has all scripts loaded.
    pub(super) fn load(&mut self, link: &mut Link, patience: Duration) {
        for script in Script::ALL {
            let tag = Tag { purpose: Purpose::Load, host: 0, number: script as u64 };
            link.command(tag.to_u64(), patience, &[b"SCRIPT", b"LOAD", script.text().as_bytes()]);
        }
    }

    /// Notes that a script is there.
    pub(super) fn is_loaded(&mut self, number: u64, digest: &[u8]) {
        if let Some(place) = usize::try_from(number).ok().and_then(|number| self.digests.get_mut(number)) {
            *place = Some(digest.into());
        }
    }

    /// Notes that Redis may not have the scripts any longer. Returns whether any of them was known to be there.
    pub(super) fn forget(&mut self) -> bool {
        std::mem::take(&mut self.digests).iter().any(Option::is_some)
    }

    /// Calls a script. Until it is known to be there, its text goes with each call. Returns false if that does not fit
    /// into the link's queue.
    pub(super) fn call(
        &self,
        link: &mut Link,
        tag: Tag,
        patience: Duration,
        script: Script,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> bool {
        let count = keys.len().to_string();
        let mut parts: Vec<&[u8]> = Vec::with_capacity(3 + keys.len() + arguments.len());
        match &self.digests[script as usize] {
            Some(digest) => parts.extend([&b"EVALSHA"[..], digest]),
            None => parts.extend([&b"EVAL"[..], script.text().as_bytes()]),
        }
        parts.push(count.as_bytes());
        parts.extend(keys.iter().map(|key| key.as_bytes()));
        parts.extend_from_slice(arguments);
        link.command(tag.to_u64(), patience, &parts)
    }
}
