//! What comes back with the reply to a command, so that nothing has to be kept for commands that are under way.

/// What a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Purpose {
    /// Nobody cares about the reply.
    Nothing,
    /// `number` frames, for `host`, or for many hosts if that is 0.
    Frames,
    /// A message that gets a place in the order of its topic.
    Place,
    /// The question `number`.
    Question,
    /// A member that comes or goes.
    Member,
    /// The script `number`.
    Load,
    Greet,
    Reset,
    /// What is done for the number of the host. `number` is the time on the boot clock at which it was asked.
    Claim,
    Renew,
    Clear,
    /// The counter is `number`.
    Raise,
    Look,
    /// Of the number `number`.
    Sweep,
}

const PURPOSES: [Purpose; 14] = [
    Purpose::Nothing,
    Purpose::Frames,
    Purpose::Place,
    Purpose::Question,
    Purpose::Member,
    Purpose::Load,
    Purpose::Greet,
    Purpose::Reset,
    Purpose::Claim,
    Purpose::Renew,
    Purpose::Clear,
    Purpose::Raise,
    Purpose::Look,
    Purpose::Sweep,
];

/// See the module documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) purpose: Purpose,
    pub(super) host: u8,
    /// 48 bits.
    pub(super) number: u64,
}

const NUMBER: u64 = (1 << 48) - 1;

impl Tag {
    pub(super) fn new(purpose: Purpose) -> Self {
        Self { purpose, host: 0, number: 0 }
    }

    pub(super) fn to_u64(self) -> u64 {
        (self.purpose as u64) << 56 | u64::from(self.host) << 48 | self.number & NUMBER
    }

    pub(super) fn from_u64(tag: u64) -> Self {
        let purpose = PURPOSES.get((tag >> 56) as usize).copied().unwrap_or(Purpose::Nothing);
        Self { purpose, host: (tag >> 48) as u8, number: tag & NUMBER }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_back_as_it_was() {
        for (place, purpose) in PURPOSES.into_iter().enumerate() {
            assert_eq!(purpose as usize, place);
            let tag = Tag { purpose, host: 255, number: NUMBER };
            assert_eq!(Tag::from_u64(tag.to_u64()), tag);
        }
        assert_eq!(Tag::from_u64(u64::MAX).purpose, Purpose::Nothing);
    }
}
