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
//! * After the last newline of a run of white space, unless a slash follows it at once. A run is
//!   split after its last newline; a newline is in one piece with what follows it only if that is a
//!   slash.

/// About how long a window is, in bytes. A window of this size costs no more than one of a megabyte.
const WINDOW: usize = 256;

/// The windows of a text, which joined are the text.
pub(crate) struct Windows<'a> {
    rest: &'a str,
}

impl<'a> Windows<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        Self { rest: text }
    }
}

impl<'a> Iterator for Windows<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let (window, rest) = self.rest.split_at(cut(self.rest));
        self.rest = rest;
        Some(window)
    }
}

/// Where the first window of `text` ends.
fn cut(text: &str) -> usize {
    if text.len() <= WINDOW {
        return text.len();
    }
    plain_cut(text.as_bytes()).unwrap_or_else(|| next_cut(text))
}

/// The last plain space after a visible ASCII character, of those in the second half of a window.
fn plain_cut(text: &[u8]) -> Option<usize> {
    let is_cut = |at: &usize| text[*at] == b' ' && text[*at - 1].is_ascii_graphic();
    (WINDOW / 2..=WINDOW).rev().find(is_cut)
}

/// The first place to cut from the end of a window on.
fn next_cut(text: &str) -> usize {
    let mut from = WINDOW;
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    // What stands before is not looked at: it is taken for white space, after which nothing is cut.
    let mut after_space = true;
    let mut after_newline = None;
    for (at, char) in text[from..].char_indices() {
        let at = from + at;
        match char {
            '\r' | '\n' => {
                after_newline = Some(at + 1);
                after_space = true;
            }
            _ if char.is_whitespace() => {
                if !after_space {
                    return at;
                }
            }
            _ => {
                match after_newline.take() {
                    Some(newline) if newline < at || char != '/' => return newline,
                    _ => {}
                }
                after_space = false;
            }
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn joined_they_are_the_text(text in "(?s)[a .\n/\u{a0}1é]{0,2000}") {
            prop_assert_eq!(Windows::of(&text).collect::<String>(), text);
        }
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
        assert_eq!(Windows::of(&text).count(), 1);
    }
}
