//! How streams that break are continued.

use std::time::Duration;

use crate::error::ConfigError;

/// Continues streams that break after their first token on another target; off unless it is
/// [switched on](crate::FailoverBuilder::resume).
///
/// ```
/// use std::time::Duration;
/// use donjon_failover::Resume;
///
/// let resume = Resume::new().most(1).within(Duration::from_secs(20));
/// # let _ = resume;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use]
pub struct Resume {
    pub(crate) most: u32,
    pub(crate) align_within: usize,
    pub(crate) within: Duration,
    pub(crate) restart: bool,
    pub(crate) same_target: bool,
    pub(crate) prefill_again_after: Duration,
}

impl Resume {
    /// Twice a stream at most, by whichever way is possible, on targets that have not failed the call.
    pub const fn new() -> Self {
        Self {
            most: 2,
            align_within: 64 << 10,
            within: Duration::from_secs(60),
            restart: true,
            same_target: false,
            prefill_again_after: Duration::from_secs(600),
        }
    }

    /// How often one stream is continued; default 2. For each time every target may be asked once, and
    /// one that rejected what was begun once more, for all of it.
    pub const fn most(mut self, most: u32) -> Self {
        self.most = most;
        self
    }

    /// How many bytes of an answer that is given anew are swallowed at most, those of text that was shown
    /// and of reasoning; default 64 KiB. Where more was shown than that, no answer is asked for anew.
    pub const fn align_within(mut self, bytes: usize) -> Self {
        self.align_within = bytes;
        self
    }

    /// How long each target has from being asked until it shows something new; default one minute. Then
    /// the next one is asked. The deadline of the call may end it earlier.
    pub const fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Whether an answer is asked for anew where no target [continues](crate::Target::continues) what was
    /// begun; default yes.
    pub const fn restart(mut self, restart: bool) -> Self {
        self.restart = restart;
        self
    }

    /// Whether the target whose stream broke is asked once more, after all others, for errors after which
    /// the same target may be asked ([`Disposition::retry`](donjon_core::Disposition::retry)); default no.
    pub const fn same_target(mut self, same: bool) -> Self {
        self.same_target = same;
        self
    }

    /// For how long a target that rejected a begun answer is not asked to continue one; default ten
    /// minutes.
    pub const fn prefill_again_after(mut self, after: Duration) -> Self {
        self.prefill_again_after = after;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let impossible = |field: &'static str, why| {
            Err(ConfigError::Impossible {
                field: field.into(),
                why,
            })
        };
        if self.most == 0 {
            return impossible("resume.most", "must be at least 1");
        }
        if self.align_within == 0 {
            return impossible("resume.align_within", "must be at least 1");
        }
        if self.within.is_zero() {
            return impossible("resume.within", "must be some time");
        }
        Ok(())
    }
}

impl Default for Resume {
    fn default() -> Self {
        Self::new()
    }
}

/// How a stream goes on that had broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum ResumeWay {
    /// A target was given the answer as far as it was shown, and went on with it.
    Prefill = 0,
    /// A target answered anew, and said the same as far as it was shown.
    Aligned = 1,
}

impl ResumeWay {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Prefill, Self::Aligned];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Aligned => "aligned",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_option_names_its_field() {
        let field = |resume: Resume| resume.check().expect_err("impossible").field();
        assert!(Resume::new().check().is_ok());
        assert_eq!(field(Resume::new().most(0)), "resume.most");
        assert_eq!(field(Resume::new().align_within(0)), "resume.align_within");
        assert_eq!(field(Resume::new().within(Duration::ZERO)), "resume.within");
    }
}
