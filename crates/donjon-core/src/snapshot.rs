//! How a handle shows its figures.

use std::{borrow::Cow, fmt, sync::Arc};

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FigureKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Figure {
    /// Its name in snake case, with its unit where it has one (`wait_seconds`).
    pub name: Cow<'static, str>,
    /// What it is.
    pub kind: FigureKind,
    /// What it belongs to (`target`, `reason`), apart from the layer.
    pub labels: Vec<(&'static str, Cow<'static, str>)>,
    /// How much it is.
    pub value: f64,
}

impl Figure {
    /// A figure that only grows.
    #[expect(
        clippy::cast_precision_loss,
        reason = "exact up to 2^53, as exporters have it"
    )]
    pub fn counter(name: impl Into<Cow<'static, str>>, value: u64) -> Self {
        Self {
            name: name.into(),
            kind: FigureKind::Counter,
            labels: Vec::new(),
            value: value as f64,
        }
    }

    /// A figure that goes up and down.
    pub fn gauge(name: impl Into<Cow<'static, str>>, value: f64) -> Self {
        Self {
            name: name.into(),
            kind: FigureKind::Gauge,
            labels: Vec::new(),
            value,
        }
    }

    /// Says what it belongs to.
    #[must_use]
    pub fn label(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.labels.push((name, value.into()));
        self
    }
}

/// What a handle shows, each figure marked with what it belongs to: for the handles of several layers
/// of one kind, such as the pools of several targets.
pub struct Labelled<S> {
    inner: S,
    label: (&'static str, Cow<'static, str>),
    decides: bool,
}

impl<S> Labelled<S> {
    /// Marks the figures of `inner` with the label `name` of this value.
    pub fn new(name: &'static str, value: impl Into<Cow<'static, str>>, inner: S) -> Self {
        let label = (name, value.into());
        let decides = true;
        Self {
            inner,
            label,
            decides,
        }
    }

    /// Shows figures alone: that this layer cannot serve does not mean that nobody can.
    #[must_use]
    pub fn without_health(mut self) -> Self {
        self.decides = false;
        self
    }
}

impl<S: Snapshot> Snapshot for Labelled<S> {
    fn layer(&self) -> &'static str {
        self.inner.layer()
    }

    fn figures(&self) -> Vec<Figure> {
        let (name, value) = &self.label;
        let figures = self.inner.figures().into_iter();
        figures
            .map(|figure| figure.label(name, value.clone()))
            .collect()
    }

    fn health(&self) -> Result<(), String> {
        if !self.decides {
            return Ok(());
        }
        let (_, value) = &self.label;
        self.inner.health().map_err(|why| format!("{value}: {why}"))
    }
}

impl<S: Snapshot + ?Sized> Snapshot for Arc<S> {
    fn layer(&self) -> &'static str {
        (**self).layer()
    }

    fn figures(&self) -> Vec<Figure> {
        (**self).figures()
    }

    fn health(&self) -> Result<(), String> {
        (**self).health()
    }
}

impl<S: fmt::Debug> fmt::Debug for Labelled<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Labelled")
            .field("inner", &self.inner)
            .field("label", &self.label)
            .finish()
    }
}

/// What a handle shows to exporters and health reports, without these knowing the layer.
///
/// Figures are read when they are asked for; nobody is told while calls go by.
pub trait Snapshot: Send + Sync {
    /// The layer (`retry`, `failover`), the prefix of its figures.
    fn layer(&self) -> &'static str;

    /// Its figures now.
    fn figures(&self) -> Vec<Figure>;

    /// Whether calls can be served as far as this layer can tell; why not, if not.
    ///
    /// # Errors
    ///
    /// A sentence for the health report.
    fn health(&self) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pool;

    impl Snapshot for Pool {
        fn layer(&self) -> &'static str {
            "pool"
        }

        fn figures(&self) -> Vec<Figure> {
            vec![Figure::gauge("size", 3.0).label("profile", "main")]
        }

        fn health(&self) -> Result<(), String> {
            Err("it is full".into())
        }
    }

    #[test]
    fn a_label_stands_on_every_figure_and_in_front_of_what_is_wrong() {
        let labelled = Labelled::new("target", "spare", Arc::new(Pool));
        assert_eq!(labelled.layer(), "pool");
        let figures = labelled.figures();
        let labels: Vec<_> = figures[0]
            .labels
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        assert_eq!(labels, [("profile", "main"), ("target", "spare")]);
        assert_eq!(labelled.health(), Err("spare: it is full".to_owned()));
        let figures_alone = labelled.without_health();
        assert_eq!(figures_alone.health(), Ok(()));
        assert_eq!(figures_alone.figures().len(), 1);
    }
}
