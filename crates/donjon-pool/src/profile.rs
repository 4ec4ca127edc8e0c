//! Named pools.

use std::{fmt, sync::Arc};

use donjon_core::{Chat, LlmRequest};

use crate::{
    error::ConfigError,
    limit::{Aimd, Fixed, Gradient, Limit},
    slots::MAX_SIZE,
};

/// A named pool: with a size of its own and, where it says so, with a model and parameters of its
/// own for the calls that fall under it.
///
/// ```
/// use donjon_pool::Profile;
///
/// let creative = Profile::new("creative").size(4).model("gpt-4o").edit(|chat| {
///     chat.temperature = Some(1.2);
/// });
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Profile {
    pub(crate) name: Arc<str>,
    pub(crate) size: Option<Size>,
    pub(crate) settings: Settings,
}

impl Profile {
    /// A pool of this name and of the layer's size.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            size: None,
            settings: Settings::default(),
        }
    }

    /// Sets its size; default the layer's.
    pub fn size(mut self, slots: u32) -> Self {
        self.size = Some(Size::Fixed(slots));
        self
    }

    /// Lets its size follow overload errors.
    pub fn aimd(mut self, limit: Aimd) -> Self {
        self.size = Some(Size::Aimd(limit));
        self
    }

    /// Lets its size follow the time to first token.
    pub fn gradient(mut self, limit: Gradient) -> Self {
        self.size = Some(Size::Gradient(limit));
        self
    }

    /// Sets the model that its calls ask; default the one that they ask anyway.
    pub fn model(mut self, model: impl Into<Arc<str>>) -> Self {
        self.settings.model = Some(model.into());
        self
    }

    /// Changes the parameters of its chats. The prompt is copied for it if others share it.
    pub fn edit(mut self, edit: impl Fn(&mut Chat) + Send + Sync + 'static) -> Self {
        self.settings.edit = Some(Arc::new(edit));
        self
    }
}

type Edit = Arc<dyn Fn(&mut Chat) + Send + Sync>;

/// What a profile sets on its requests.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    model: Option<Arc<str>>,
    edit: Option<Edit>,
}

impl Settings {
    pub(crate) fn apply(&self, request: &mut LlmRequest) {
        if let Some(model) = &self.model {
            request.set_model(model.clone());
        }
        if let Some(edit) = &self.edit
            && let Some(chat) = request.edit_chat()
        {
            edit(chat);
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("model", &self.model)
            .field("edits", &self.edit.is_some())
            .finish()
    }
}

/// How many slots a pool has.
#[derive(Clone)]
pub(crate) enum Size {
    Fixed(u32),
    Aimd(Aimd),
    Gradient(Gradient),
    Custom(Arc<dyn Fn() -> Box<dyn Limit> + Send + Sync>),
}

impl Size {
    /// What the pool starts with, and what adapts it, if anything does.
    pub(crate) fn start(&self) -> Result<(u32, Option<Box<dyn Limit>>), ConfigError> {
        let limit: Box<dyn Limit> = match self {
            Self::Fixed(slots) => {
                if *slots == 0 || *slots > MAX_SIZE {
                    return Err(ConfigError::Size(*slots));
                }
                return Ok((Fixed(*slots).limit(), None));
            }
            Self::Aimd(aimd) => Box::new(aimd.start()?),
            Self::Gradient(gradient) => Box::new(gradient.start()?),
            Self::Custom(make) => make(),
        };
        Ok((limit.limit(), Some(limit)))
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(slots) => f.debug_tuple("Fixed").field(slots).finish(),
            Self::Aimd(aimd) => aimd.fmt(f),
            Self::Gradient(gradient) => gradient.fmt(f),
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}
