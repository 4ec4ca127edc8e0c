//! What can go wrong at a target, and what must come of it: a table, and a reckoner that goes by it and
//! knows nothing of the stack.

use std::time::Duration;

use donjon_testkit::upstream::{End, Failure, Script};

use super::front::Mode;

/// The words of every answer, so that a shown part can be told from the whole.
pub(super) const WORDS: usize = 12;

pub(super) fn words(n: usize) -> String {
    (0..n).map(|n| format!("w{n} ")).collect()
}

/// What comes of a fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// It is answered all the same.
    Serves,
    /// The same target is asked again while attempts are left, then the next.
    Again(u16),
    /// The next target is asked at once.
    Next(u16),
    /// The caller gets it as it is.
    Final(u16),
    /// So many words are shown, then it breaks.
    Shown(usize),
}

pub(super) struct Fault {
    pub(super) name: &'static str,
    pub(super) script: fn() -> Script,
    unary: Then,
    streamed: Then,
    /// After how long, in milliseconds, a whole answer ends or the fault is known, and a stream's head
    /// comes, beside what is done at once.
    unary_takes: u64,
    streamed_takes: u64,
    head_takes: u64,
    /// Whether it breaks the exchange off, and so does not end it in order.
    breaks: bool,
}

impl Fault {
    pub(super) const fn then(&self, mode: Mode) -> Then {
        match mode {
            Mode::Unary => self.unary,
            Mode::Streamed => self.streamed,
        }
    }

    /// How the upstream sees each exchange end.
    pub(super) const fn ends(&self, mode: Mode) -> End {
        match self.then(mode) {
            Then::Serves => End::Completed,
            // It was waited for, and given up.
            _ if !self.takes(mode).0.is_zero() => End::PeerLeft,
            _ if self.breaks => End::Broken,
            _ => End::Completed,
        }
    }

    /// Until it ends, and until its head.
    const fn takes(&self, mode: Mode) -> (Duration, Duration) {
        let (end, head) = match mode {
            Mode::Unary => (self.unary_takes, self.unary_takes),
            Mode::Streamed => (self.streamed_takes, self.head_takes),
        };
        (Duration::from_millis(end), Duration::from_millis(head))
    }
}

/// In milliseconds.
pub(super) const FIRST_TOKEN: u64 = 10_000;
/// In milliseconds.
pub(super) const IDLE: u64 = 15_000;
/// In milliseconds.
pub(super) const RESPONSE: u64 = 30_000;
/// In milliseconds.
pub(super) const TOTAL: u64 = 120_000;

const fn fault(name: &'static str, script: fn() -> Script, unary: Then, streamed: Then) -> Fault {
    Fault {
        name,
        script,
        unary,
        streamed,
        unary_takes: 0,
        streamed_takes: 0,
        head_takes: 0,
        breaks: false,
    }
}

const fn slow(mut fault: Fault, unary: u64, streamed: u64, head: u64) -> Fault {
    fault.unary_takes = unary;
    fault.streamed_takes = streamed;
    fault.head_takes = head;
    fault
}

const fn both(name: &'static str, script: fn() -> Script, then: Then) -> Fault {
    fault(name, script, then, then)
}

const fn broken(mut fault: Fault) -> Fault {
    fault.breaks = true;
    fault
}

/// A fault a row: its name, what the target does, what comes of it unary and streamed.
#[rustfmt::skip]
pub(super) fn faults() -> Vec<Fault> {
    use Then::{Again, Final, Next, Serves, Shown};
    vec![
        // None, and such as are none.
        both("good", || Script::words(WORDS), Serves),
        slow(both("slow", || Script::words(WORDS).first_token_after(Duration::from_secs(5)).gap(Duration::from_millis(500)), Serves), 10_500, 10_500, 5_000),
        slow(both("pings", || Script::words(WORDS).pings(5, Duration::from_secs(1)), Serves), 0, 5_000, 5_000),
        both("no [DONE]", || Script::words(WORDS).no_done(), Serves),
        fault("malformed event", || Script::words(WORDS).bad_event_at(6), Again(502), Serves),
        // Before the head.
        broken(both("reset", Script::reset, Again(502))),
        broken(both("closed", Script::close, Again(502))),
        broken(both("not HTTP", Script::garbage, Again(502))),
        slow(both("silence", Script::hang, Next(504)), RESPONSE, FIRST_TOKEN, FIRST_TOKEN),
        both("500", || Failure::server_error().into(), Again(502)),
        both("502", || Failure::bad_gateway().into(), Again(503)),
        both("503", || Failure::service_unavailable().into(), Again(503)),
        both("504", || Failure::gateway_timeout().into(), Again(503)),
        both("overloaded", || Failure::overloaded().into(), Again(503)),
        both("429", || Failure::rate_limited().into(), Again(429)),
        both("429, an hour", || Script::from(Failure::rate_limited()).retry_after(3600), Next(429)),
        both("no quota", || Failure::insufficient_quota().into(), Next(429)),
        both("401", || Failure::invalid_api_key().into(), Next(401)),
        both("403", || Failure::permission_denied().into(), Next(403)),
        both("404", || Failure::model_not_found().into(), Next(404)),
        both("too long", || Failure::context_length_exceeded().into(), Next(400)),
        both("too large", || Failure::too_large().into(), Next(413)),
        both("400", || Failure::invalid_request().into(), Final(400)),
        both("policy", || Failure::content_policy().into(), Final(400)),
        both("error in 200", || Failure::error_in_200().into(), Again(502)),
        both("page in 200", || Failure::page_in_200().into(), Again(502)),
        // After the head, before the first token.
        slow(both("head, silence", Script::headers_then_hang, Next(504)), RESPONSE, FIRST_TOKEN, FIRST_TOKEN),
        slow(both("role, silence", || Script::words(WORDS).role_then_silence(), Next(504)), RESPONSE, FIRST_TOKEN, FIRST_TOKEN),
        slow(fault("pings for ever", || Script::words(WORDS).pings(usize::MAX, Duration::from_secs(1)), Serves, Next(504)), 0, FIRST_TOKEN, FIRST_TOKEN),
        broken(both("cut at 0", || Script::words(WORDS).cut_after(0), Again(502))),
        broken(both("half-cut at 0", || Script::words(WORDS).cut_inside_event(0), Again(502))),
        broken(both("reset at 0", || Script::words(WORDS).reset_after(0), Again(502))),
        both("error at 0", || Script::words(WORDS).error_event_at(0, Failure::server_error()), Again(502)),
        both("withheld", || Script::empty_answer().content_filter(), Final(400)),
        // After the first token.
        broken(fault("cut at 6", || Script::words(WORDS).cut_after(6), Again(502), Shown(6))),
        broken(fault("half-cut at 6", || Script::words(WORDS).cut_inside_event(6), Again(502), Shown(6))),
        broken(fault("chunk cut at 6", || Script::words(WORDS).cut_inside_chunk(6), Again(502), Shown(6))),
        broken(fault("reset at 6", || Script::words(WORDS).reset_after(6), Again(502), Shown(6))),
        fault("error at 6", || Script::words(WORDS).error_event_at(6, Failure::overloaded()), Again(503), Shown(6)),
        slow(fault("stall at 6", || Script::words(WORDS).stall_after(6, None), Next(504), Shown(6)), RESPONSE, IDLE, 0),
        // At the last token.
        broken(fault("cut at the end", || Script::words(WORDS).cut_after(WORDS), Again(502), Shown(WORDS))),
        broken(fault("reset at the end", || Script::words(WORDS).reset_after(WORDS), Again(502), Shown(WORDS))),
        fault("error at the end", || Script::words(WORDS).error_event_at(WORDS, Failure::server_error()), Again(502), Shown(WORDS)),
        slow(fault("stall at the end", || Script::words(WORDS).stall_after(WORDS, None), Next(504), Shown(WORDS)), RESPONSE, IDLE, 0),
        fault("no finish reason", || Script::words(WORDS).no_finish_reason(), Again(502), Shown(WORDS)),
    ]
}

/// What the caller must get.
#[derive(Debug, PartialEq)]
pub(super) enum Due {
    Whole,
    Error(u16),
    Cut(usize),
}

/// What must come of a call.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) due: Due,
    /// The attempts that each target sees.
    pub(super) attempts: Vec<usize>,
    /// Its head comes after this and its end after that, and not much later.
    pub(super) head: Duration,
    pub(super) end: Duration,
}

/// The attempts that one target may have.
const PER_TARGET: usize = 3;

/// How often a stream that broke is continued.
pub(super) const RESUMED: u32 = 2;

/// What must come of a call to targets with these faults, in this order; streams that break are
/// continued where that is `resumed`.
pub(super) fn reckon(targets: &[&Fault], mode: Mode, resumed: bool) -> Verdict {
    let total = PER_TARGET + targets.len() - 1;
    let mut attempts = vec![0; targets.len()];
    let (mut head, mut end) = (None, Duration::ZERO);
    let (mut shown, mut broken) = (0, 0);
    let mut failed = Vec::new();
    let mut over = None;
    for (at, fault) in targets.iter().enumerate() {
        let untried = targets.len() - 1 - at;
        let due = loop {
            attempts[at] += 1;
            let (until_end, until_head) = fault.takes(mode);
            if let Then::Serves | Then::Shown(_) = fault.then(mode) {
                head = head.or(Some(end + until_head));
            }
            end += until_end;
            break match fault.then(mode) {
                Then::Serves => Some(Due::Whole),
                Then::Shown(words) => {
                    broken += u32::from(words > shown);
                    shown = words.max(shown);
                    (!resumed || broken > RESUMED).then_some(Due::Cut(shown))
                }
                // It may be what was asked for, but something was shown already.
                Then::Final(_) if shown > 0 => None,
                Then::Final(status) => Some(Due::Error(status)),
                Then::Next(status) => {
                    failed.push(status);
                    None
                }
                Then::Again(status) => {
                    let sent: usize = attempts.iter().sum();
                    if attempts[at] < PER_TARGET && sent + untried < total {
                        continue;
                    }
                    failed.push(status);
                    None
                }
            };
        };
        if due.is_some() {
            over = due;
            break;
        }
    }
    let due = over.unwrap_or_else(|| {
        let alike = failed.iter().all(|status| *status == failed[0]);
        match shown {
            0 if alike => Due::Error(failed[0]),
            0 => Due::Error(503),
            _ => Due::Cut(shown),
        }
    });
    Verdict {
        due,
        attempts,
        head: head.unwrap_or(end),
        end,
    }
}
