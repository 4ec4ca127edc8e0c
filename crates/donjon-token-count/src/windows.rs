//! Cutting a text where its pieces end in any case.
//!
//! An encoding first splits a text into pieces (words, numbers, punctuation, white space) and then
//! each piece into tokens. Where white space other than a plain space stands in a text, the splitting
//! of the library below looks at all of what is left of it, piece after piece: a hundred kilobytes of
//! it took a second. So texts are handed to it in small windows, cut only where a piece ends whatever
//! stands before or after:
//!
//! * Between what is no white space and white space that is no newline. No piece holds white space
//!   after something else, but for the newlines after punctuation; and the look ahead of white space
//!   never crosses from what is none.
//! * Between a letter and a digit or a sign that is no apostrophe, between a digit and a letter, and
//!   between a sign and a digit: no piece holds both in this order. Only characters that have been what they
//!   are since the first versions of Unicode count.
//! * After the last newline of a run of white space, unless a slash follows it at once. A run is
//!   split after its last newline; a newline is in one piece with what follows it only if that is a
//!   slash.

/// About how long a window is, in bytes. A window of this size costs no more than one of a megabyte.
const WINDOW: usize = 256;

/// The windows of a text, which joined are the text.
pub(crate) struct Windows<'a> {
    rest: &'a str,
    longest: usize,
    forced: u64,
}

impl<'a> Windows<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        Self {
            rest: text,
            longest: usize::MAX,
            forced: 0,
        }
    }

    /// Cuts them in any case when they have so many bytes.
    pub(crate) fn of_at_most(mut self, longest: usize) -> Self {
        self.longest = longest.max(WINDOW);
        self
    }

    /// How many were cut where no piece need end.
    pub(crate) fn forced(&self) -> u64 {
        self.forced
    }
}

impl<'a> Iterator for Windows<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let end = cut(self.rest, self.longest).unwrap_or_else(|| {
            self.forced += 1;
            floor(self.rest, self.longest)
        });
        let (window, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(window)
    }
}

/// Where the first window of `text` ends; `None` if it may not within its first `longest` bytes.
fn cut(text: &str, longest: usize) -> Option<usize> {
    if text.len() <= WINDOW {
        return Some(text.len());
    }
    plain_cut(text.as_bytes()).or_else(|| next_cut(text, longest))
}

/// The boundary of a character at `at` or before.
fn floor(text: &str, at: usize) -> usize {
    (0..=at)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or_default()
}

/// The last plain space after a visible ASCII character, of those in the second half of a window.
fn plain_cut(text: &[u8]) -> Option<usize> {
    let is_cut = |at: &usize| text[*at] == b' ' && text[*at - 1].is_ascii_graphic();
    (WINDOW / 2..=WINDOW).rev().find(is_cut)
}

/// What a character is to the splitting, as far as it is sure in every version of Unicode.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Letter,
    Digit,
    /// Neither of both, no mark on a letter, no white space; also not `'`, which may belong to a word.
    Sign,
    Other,
}

fn kind(char: char) -> Kind {
    match char {
        'a'..='z' | 'A'..='Z' => Kind::Letter,
        '0'..='9' => Kind::Digit,
        '\'' => Kind::Other,
        '!'..='~' => Kind::Sign,
        // Cyrillic, kana, Chinese characters, Hangul.
        'а'..='я' | 'А'..='Я' | 'ぁ'..='ゖ' | 'ァ'..='ヺ' | '一'..='龥' | '가'..='힣' => {
            Kind::Letter
        }
        '、' | '。' | '《'..='】' | '！' | '，' | '：' | '；' | '？' => Kind::Sign,
        _ => Kind::Other,
    }
}

/// The first place to cut from the end of a window on; `None` if it may not within `longest` bytes.
fn next_cut(text: &str, longest: usize) -> Option<usize> {
    let from = floor(text, WINDOW);
    // What stands before is not looked at: it is taken for white space, after which nothing is cut.
    let mut after_space = true;
    let mut after_newline = None;
    let mut before = Kind::Other;
    for (at, char) in text[from..].char_indices() {
        let at = from + at;
        if at > longest {
            return None;
        }
        match char {
            '\r' | '\n' => {
                after_newline = Some(at + 1);
                after_space = true;
                before = Kind::Other;
            }
            _ if char.is_whitespace() => {
                if !after_space {
                    return Some(at);
                }
                before = Kind::Other;
            }
            _ => {
                match after_newline.take() {
                    Some(newline) if newline < at || char != '/' => return Some(newline),
                    _ => {}
                }
                after_space = false;
                let kind = kind(char);
                let ends = match before {
                    Kind::Letter => matches!(kind, Kind::Digit | Kind::Sign),
                    Kind::Digit => kind == Kind::Letter,
                    Kind::Sign => kind == Kind::Digit,
                    Kind::Other => false,
                };
                if ends {
                    return Some(at);
                }
                before = kind;
            }
        }
    }
    (text.len() <= longest).then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn joined_they_are_the_text(text in "(?s)[a .\n/\u{a0}1é中。]{0,2000}") {
            prop_assert_eq!(Windows::of(&text).collect::<String>(), &*text);
            let mut short = Windows::of(&text).of_at_most(300);
            let windows: Vec<_> = short.by_ref().collect();
            prop_assert_eq!(windows.concat(), &*text);
            prop_assert!(windows.iter().all(|window| window.len() <= 304));
        }
    }

    #[test]
    fn what_has_no_end_is_cut_where_that_is_asked_for() {
        for pattern in ["a", "é", "🏰", "!", "\n", "\u{a0}", " ", "1"] {
            let text = pattern.repeat(5_000);
            assert_eq!(Windows::of(&text).count(), 1, "{pattern:?}");
            let mut windows = Windows::of(&text).of_at_most(512);
            let longest = windows.by_ref().map(str::len).max();
            assert!(longest <= Some(512), "{pattern:?}: {longest:?}");
            assert!(windows.forced() >= text.len() as u64 / 512, "{pattern:?}");
        }
        let text = "城墙失守，主楼仍在。".repeat(500);
        let longest = Windows::of(&text).map(str::len).max();
        assert!(longest <= Some(WINDOW + 30), "{longest:?}");
    }

    #[test]
    fn white_space_of_any_kind_ends_them() {
        // Uncut, a hundred kilobytes of each took a second.
        for pattern in [
            "a ",
            "a \u{a0}",
            "1\u{a0}",
            ".\n\u{2003}",
            "中\u{3000}",
            "\t/\r\u{85}",
            "a\n",
            "\u{2003}/\n",
            ".\r\u{2003}\u{a0}",
            "\u{200b}\n\r\u{2003}\u{3000}",
        ] {
            let text = pattern.repeat(2_000);
            let longest = Windows::of(&text).map(str::len).max();
            assert!(longest <= Some(WINDOW + 16), "{pattern:?}: {longest:?}");
        }
    }

    #[test]
    fn a_newline_and_the_slash_after_it_stay_together() {
        let text = "a.\n/".repeat(500);
        assert!(Windows::of(&text).all(|window| !window.starts_with('/')));
        let text = ".\n/".repeat(500);
        assert_eq!(Windows::of(&text).count(), 1);
    }
}
