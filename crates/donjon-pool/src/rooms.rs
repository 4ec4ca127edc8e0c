//! The pools of a layer, by key.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use donjon_core::{ErrorKind, Key, KeyBy, Keyed, LlmError, LlmRequest};

use crate::{
    error::ConfigError,
    figures::{Count, RejectReason},
    handle::PoolEvent,
    profile::{Profile, Settings, Size},
    room::Room,
    rules::Common,
};

/// The size of the pool of a key, where it has one of its own.
pub(crate) type SizeFor = Arc<dyn Fn(&Key) -> Option<u32> + Send + Sync>;

/// The pools of a layer: one for all that has no key, one for each profile, one for each other key.
pub(crate) struct Rooms {
    key_by: KeyBy,
    main: Arc<Room>,
    profiles: HashMap<Key, (Arc<Room>, Settings)>,
    keyed: Keyed<Room>,
    size: Size,
    size_for: Option<SizeFor>,
    /// The size that was set by hand for keys to come; 0 for none.
    by_hand: AtomicU32,
    refused: Count,
    common: Arc<Common>,
}

impl Rooms {
    pub(crate) fn new(
        key_by: KeyBy,
        max_keys: usize,
        size: Size,
        size_for: Option<SizeFor>,
        profiles: Vec<Profile>,
        common: Arc<Common>,
    ) -> Result<Self, ConfigError> {
        if max_keys == 0 {
            return Err(ConfigError::ZeroMaxKeys);
        }
        if !profiles.is_empty() && matches!(key_by, KeyBy::Global) {
            return Err(ConfigError::ProfilesWithoutKey);
        }
        let make = |key: Key, size: &Size| {
            let (slots, adapts) = size.start()?;
            Ok(Arc::new(Room::new(
                key,
                slots,
                adapts,
                false,
                common.clone(),
            )))
        };
        let main = make(Key::Global, &size)?;
        let mut named = HashMap::new();
        for profile in profiles {
            let key = Key::Name(profile.name.clone());
            let room = make(key.clone(), profile.size.as_ref().unwrap_or(&size))?;
            if named.insert(key, (room, profile.settings)).is_some() {
                return Err(ConfigError::SameProfile(profile.name));
            }
        }
        Ok(Self {
            key_by,
            main,
            profiles: named,
            keyed: Keyed::new(max_keys),
            size,
            size_for,
            by_hand: AtomicU32::new(0),
            refused: Count::default(),
            common,
        })
    }

    /// The pool of `request`, which is set up as its profile says.
    #[inline]
    pub(crate) fn of(&self, request: &mut LlmRequest) -> Result<Arc<Room>, LlmError> {
        match self.key_by {
            KeyBy::Global => Ok(self.main.clone()),
            _ => self.by_key(request),
        }
    }

    fn by_key(&self, request: &mut LlmRequest) -> Result<Arc<Room>, LlmError> {
        let key = self.key_by.key(request);
        if key == Key::Global {
            return Ok(self.main.clone());
        }
        if let Some((room, settings)) = self.profiles.get(&key) {
            settings.apply(request);
            return Ok(room.clone());
        }
        self.get_or_make(&key).ok_or_else(|| {
            self.refused.add(1);
            let reason = RejectReason::Keys;
            if let Some(attempt) = request.call.attempt() {
                attempt.set_unsent();
            }
            self.common
                .events
                .tell(|| PoolEvent::Rejected { key, reason });
            LlmError::new(ErrorKind::QueueFull, reason.says())
        })
    }

    /// The pool of a key, as far as there may be another one.
    fn get_or_make(&self, key: &Key) -> Option<Arc<Room>> {
        let make = || {
            let by_hand = self.by_hand.load(Relaxed);
            let own = self.size_for.as_ref().and_then(|size_for| size_for(key));
            let size = match own {
                Some(slots) => Size::Fixed(slots.max(1)),
                None if by_hand > 0 && matches!(self.size, Size::Fixed(_)) => Size::Fixed(by_hand),
                None => self.size.clone(),
            };
            // What was parsed once does not fail again; a size out of range is the largest.
            let (slots, adapts) = size.start().unwrap_or((crate::slots::MAX_SIZE, None));
            let room = Room::new(key.clone(), slots, adapts, true, self.common.clone());
            if own.is_none() && by_hand > 0 && room.is_adaptive() {
                room.resize(by_hand);
            }
            room
        };
        self.keyed.get_or_make(key, make).ok()
    }

    /// The pool of a key that is known.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Room>> {
        match key {
            Key::Global => Some(self.main.clone()),
            key => match self.profiles.get(key) {
                Some((room, _)) => Some(room.clone()),
                None => self.keyed.get(key),
            },
        }
    }

    /// Sets the size of every pool that has none of its own, also of those to come.
    pub(crate) fn resize(&self, size: u32) {
        self.by_hand.store(size, Relaxed);
        self.main.resize(size);
        let mut rooms = Vec::new();
        self.keyed.for_each(|key, room| {
            let own = self.size_for.as_ref().and_then(|size_for| size_for(key));
            if own.is_none() && !room.is_kept() {
                rooms.push(key.clone());
            }
        });
        for key in rooms {
            if let Some(room) = self.keyed.get(&key) {
                room.resize(size);
            }
        }
    }

    /// Sets the size of one pool, which is made if it may be and kept from then on.
    pub(crate) fn resize_key(&self, key: &Key, size: u32) -> bool {
        let Some(room) = self.get(key).or_else(|| self.get_or_make(key)) else {
            return false;
        };
        room.keep();
        room.resize(size);
        true
    }

    /// Calls `each` for every pool.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&Key, &Room)) {
        each(&Key::Global, &self.main);
        for (key, (room, _)) in &self.profiles {
            each(key, room);
        }
        self.keyed.for_each(each);
    }

    /// How many pools there are.
    pub(crate) fn len(&self) -> usize {
        1 + self.profiles.len() + self.keyed.len()
    }

    /// How many calls were refused because there may be no other pool, and how many pools were
    /// forgotten.
    pub(crate) fn refused_and_evicted(&self) -> (u64, u64) {
        (self.refused.get(), self.keyed.evicted())
    }

    pub(crate) fn common(&self) -> &Common {
        &self.common
    }
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms")
            .field("key_by", &self.key_by)
            .field("size", &self.size)
            .field("profiles", &self.profiles.keys())
            .field("keyed", &self.keyed)
            .field("rules", &self.common.rules)
            .finish_non_exhaustive()
    }
}
