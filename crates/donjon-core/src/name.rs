//! Names that a configuration gives.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    ops::Deref,
    sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError},
};

/// A name that a configuration gives: of a target, of a kind of provider. Each text is kept once for
/// the whole process, so that a name is four bytes, copying it costs nothing, and threads that name
/// the same target share no reference count.
///
/// Names are never forgotten. So they are for what is configured, and not for what callers send:
/// models, tenants and users are `Arc<str>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(NonZeroU32);

impl Name {
    /// The name of this text.
    pub fn new(text: &str) -> Self {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.get(text) {
            return *name;
        }
        let text: Arc<str> = text.into();
        let name = Self::numbered(known.len());
        let kept = name.cell().set(text.clone());
        assert!(kept.is_ok(), "a number is given to one text");
        known.insert(text, name);
        name
    }

    /// Its text.
    pub fn as_str(self) -> &'static str {
        self.text()
    }

    /// Its text, shared.
    pub fn to_arc(self) -> Arc<str> {
        self.text().clone()
    }

    fn text(self) -> &'static Arc<str> {
        self.cell().get().expect("a name is made with its text")
    }

    fn numbered(number: usize) -> Self {
        let number = u32::try_from(number + 1).ok().and_then(NonZeroU32::new);
        Self(number.expect("there is no room for four billion names"))
    }

    pub(crate) const fn number(self) -> NonZeroU32 {
        self.0
    }

    /// The name that has this number, which one must have; `None` for zero.
    pub(crate) fn of_number(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Page `n` has room for `2^n` names, so that pages never move and few stay empty.
    fn cell(self) -> &'static OnceLock<Arc<str>> {
        let page = self.0.ilog2();
        let place = self.0.get() - (1 << page);
        let page = TEXTS[page as usize].get_or_init(|| {
            let cells = std::iter::repeat_with(OnceLock::new);
            cells.take(1 << page).collect()
        });
        &page[place as usize]
    }
}

type Page = OnceLock<Box<[OnceLock<Arc<str>>]>>;

static TEXTS: [Page; 32] = [const { OnceLock::new() }; 32];
static KNOWN: LazyLock<Mutex<HashMap<Arc<str>, Name>>> = LazyLock::new(Mutex::default);

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<&String> for Name {
    fn from(text: &String) -> Self {
        Self::new(text)
    }
}

impl From<Arc<str>> for Name {
    fn from(text: Arc<str>) -> Self {
        Self::new(&text)
    }
}

impl From<&Arc<str>> for Name {
    fn from(text: &Arc<str>) -> Self {
        Self::new(text)
    }
}

impl From<Name> for Arc<str> {
    fn from(name: Name) -> Self {
        name.to_arc()
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_is_one_name() {
        let (one, other) = (Name::new("main"), Name::from(String::from("main")));
        assert_eq!(one, other);
        assert_eq!(one, "main");
        assert_ne!(one, Name::new("spare"));
        assert_eq!(format!("{one:>6} {other:?}"), "  main \"main\"");
        assert!(Arc::ptr_eq(&one.to_arc(), &other.to_arc()));
    }

    #[test]
    fn names_that_threads_give_at_once_keep_their_texts() {
        let names: Vec<Vec<Name>> = std::thread::scope(|scope| {
            let give = || {
                (0..300)
                    .map(|n| Name::new(&format!("target {n}")))
                    .collect()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(give)).collect();
            let joined = threads.into_iter().map(|t| t.join().expect("no panic"));
            joined.collect()
        });
        for (n, name) in names[0].iter().enumerate() {
            assert_eq!(*name, *format!("target {n}"));
            assert!(names.iter().all(|other| other[n] == *name));
        }
    }
}
