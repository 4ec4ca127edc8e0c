//! Fitting the answer of another target to what was shown already: pure, and fed piece by piece.

/// The answer is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Differs;

/// Swallows the beginning that an answer given anew shares with one text that was shown.
///
/// All that was shown must come again, word for word; what comes then is new.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Align {
    /// So many bytes have come again.
    at: usize,
}

impl Align {
    /// Takes the next piece: what of it is new.
    pub(crate) fn take<'a>(&mut self, shown: &str, piece: &'a str) -> Result<&'a str, Differs> {
        let rest = shown.get(self.at..).ok_or(Differs)?;
        if piece.len() <= rest.len() {
            if !rest.as_bytes().starts_with(piece.as_bytes()) {
                return Err(Differs);
            }
            self.at += piece.len();
            return Ok("");
        }
        let new = piece.strip_prefix(rest).ok_or(Differs)?;
        self.at = shown.len();
        Ok(new)
    }

    /// Whether all that was shown has come again.
    pub(crate) const fn is_done(self, shown: &str) -> bool {
        self.at >= shown.len()
    }
}

/// The least length of a begun answer, in bytes, that is looked for at the beginning of what continues
/// it: an answer may well go on with the few letters that it began with.
const SHORTEST_ECHO: usize = 8;

/// What a continuation of a begun answer may say once more, and is not to be shown twice: all that was
/// begun, which some servers repeat, and the blanks at its end, which were left out when it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Continuation {
    /// As it was sent.
    sent: Box<str>,
    /// What was shown beyond that: blanks.
    blanks: Box<str>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// So many bytes of what was sent have come again, and are held back.
    Echo(usize),
    /// So many bytes of the blanks have come again.
    Blanks(usize),
    /// What comes is new.
    New,
}

impl Continuation {
    /// Of an answer that was sent as `sent` and was shown with `blanks` after it.
    pub(crate) fn new(sent: impl Into<Box<str>>, blanks: impl Into<Box<str>>) -> Self {
        let sent = sent.into();
        let stage = match sent.len() < SHORTEST_ECHO {
            true => Stage::Blanks(0),
            false => Stage::Echo(0),
        };
        Self {
            sent,
            blanks: blanks.into(),
            stage,
        }
    }

    /// Takes the next piece: what is to be shown, now that it has come.
    pub(crate) fn take(&mut self, piece: &str) -> String {
        match self.stage {
            Stage::New => piece.into(),
            Stage::Blanks(_) => self.past_blanks(piece),
            Stage::Echo(at) => {
                let rest = &self.sent[at..];
                if let Some(new) = piece.strip_prefix(rest) {
                    self.stage = Stage::Blanks(0);
                    return self.past_blanks(new);
                }
                if rest.as_bytes().starts_with(piece.as_bytes()) {
                    self.stage = Stage::Echo(at + piece.len());
                    return String::new();
                }
                let mut held = self.let_go();
                held.push_str(&self.past_blanks(piece));
                held
            }
        }
    }

    /// What was held back and is to be shown, since no more text comes now.
    pub(crate) fn let_go(&mut self) -> String {
        match self.stage {
            Stage::Echo(at) => {
                self.stage = Stage::Blanks(0);
                let held = String::from(&self.sent[..at]);
                self.past_blanks(&held)
            }
            Stage::Blanks(_) | Stage::New => String::new(),
        }
    }

    /// Whether text may be held back or swallowed still.
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.stage, Stage::New)
    }

    fn past_blanks(&mut self, piece: &str) -> String {
        let Stage::Blanks(at) = self.stage else {
            return piece.into();
        };
        let again = self.blanks[at..].chars().zip(piece.chars());
        let again = again.take_while(|(blank, next)| blank == next);
        let again: usize = again.map(|(blank, _)| blank.len_utf8()).sum();
        let new = &piece[again..];
        self.stage = match new.is_empty() && at + again < self.blanks.len() {
            true => Stage::Blanks(at + again),
            false => Stage::New,
        };
        new.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `text` in pieces that end at any character.
    fn pieces(text: &str, cuts: &[bool]) -> Vec<String> {
        let mut pieces = vec![String::new()];
        for (letter, cut) in text.chars().zip(cuts.iter().cycle()) {
            if let Some(last) = pieces.last_mut() {
                last.push(letter);
            }
            if *cut {
                pieces.push(String::new());
            }
        }
        pieces
    }

    fn align(shown: &str, answer: &str, cuts: &[bool]) -> Result<(String, bool), Differs> {
        let mut align = Align::default();
        let mut new = String::new();
        for piece in pieces(answer, cuts) {
            new.push_str(align.take(shown, &piece)?);
        }
        Ok((new, align.is_done(shown)))
    }

    fn proceed(sent: &str, blanks: &str, answer: &str, cuts: &[bool]) -> String {
        let mut continuation = Continuation::new(sent, blanks);
        let mut new = String::new();
        for piece in pieces(answer, cuts) {
            new.push_str(&continuation.take(&piece));
        }
        new.push_str(&continuation.let_go());
        new
    }

    /// What a naive continuation does, knowing the whole answer.
    fn naive<'a>(sent: &str, blanks: &str, answer: &'a str) -> &'a str {
        let echo = sent.len() >= SHORTEST_ECHO;
        let answer = answer.strip_prefix(sent).filter(|_| echo).unwrap_or(answer);
        let mut new = answer;
        for blank in blanks.chars() {
            match new.strip_prefix(blank) {
                Some(rest) => new = rest,
                None => break,
            }
        }
        new
    }

    #[test]
    fn what_has_come_again_is_swallowed_and_the_rest_is_new() {
        let every = [true];
        assert_eq!(
            align("Grüße", "Grüße, Welt", &every),
            Ok((", Welt".into(), true))
        );
        assert_eq!(align("Grü", "Gr", &every), Ok((String::new(), false)));
        assert_eq!(align("Grü", "Gra", &every), Err(Differs));
        // The first byte of both letters is the same.
        assert_eq!(align("ü", "ö", &every), Err(Differs));
        assert_eq!(align("", "x", &every), Ok(("x".into(), true)));
    }

    #[test]
    fn an_echo_and_blanks_come_once() {
        let whole = [false];
        let sent = "A keep is";
        assert_eq!(proceed(sent, " ", " a tower", &whole), "a tower");
        assert_eq!(proceed(sent, " ", "a tower", &whole), "a tower");
        assert_eq!(proceed(sent, " ", "A keep is a tower", &whole), "a tower");
        assert_eq!(proceed(sent, "", "A keep is a tower", &whole), " a tower");
        assert_eq!(
            proceed(sent, "", "A keep", &whole),
            "A keep",
            "no echo after all"
        );
        assert_eq!(proceed(sent, "\n\n", "\n so", &whole), " so");
        assert_eq!(
            proceed("ha", "", "ha ha", &whole),
            "ha ha",
            "too short to tell"
        );
    }

    fn text() -> impl Strategy<Value = String> {
        proptest::collection::vec(proptest::sample::select(vec!['a', 'b', 'ü', ' ']), 0..24)
            .prop_map(|letters| letters.into_iter().collect())
    }

    fn cuts() -> impl Strategy<Value = Vec<bool>> {
        proptest::collection::vec(any::<bool>(), 1..12)
    }

    proptest! {
        #[test]
        fn any_pieces_align_as_a_naive_model_says(
            shown in text(), other in text(), same in any::<bool>(), cuts in cuts(),
        ) {
            let answer = if same { format!("{shown}{other}") } else { other };
            let naive = match answer.strip_prefix(&*shown) {
                Some(new) => Ok((new.to_owned(), true)),
                None if shown.starts_with(&*answer) => Ok((String::new(), false)),
                None => Err(Differs),
            };
            prop_assert_eq!(align(&shown, &answer, &cuts), naive);
        }

        #[test]
        fn any_pieces_continue_as_a_naive_model_says(
            sent in text(), blanks in 0_usize..3, rest in text(), echoed in any::<bool>(), cuts in cuts(),
        ) {
            let blanks = &"  "[..blanks];
            let answer = if echoed { format!("{sent}{rest}") } else { rest };
            let new = proceed(&sent, blanks, &answer, &cuts);
            prop_assert_eq!(new, naive(&sent, blanks, &answer));
        }
    }
}
