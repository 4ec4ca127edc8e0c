//! The health report.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use donjon_core::{FigureKind, Snapshot};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::{body::ServeBody, reply};

/// The process runs and answers; nothing more is asked.
pub(crate) fn live() -> Response<ServeBody> {
    reply::json_response(StatusCode::OK, &br#"{"status":"ok"}"#[..])
}

/// Whether calls can be served as far as each layer can tell: 200, or 503 and why not.
pub(crate) fn ready(snapshots: &[Arc<dyn Snapshot>]) -> Response<ServeBody> {
    let layers = snapshots.iter().map(|layer| Layer {
        layer: layer.layer(),
        reason: layer.health().err(),
        figures: None,
    });
    let unwell = layers.filter(|layer| layer.reason.is_some());
    Report::new(unwell.collect()).response()
}

/// The same with every layer and its figures.
pub(crate) fn report(snapshots: &[Arc<dyn Snapshot>]) -> Response<ServeBody> {
    let layers = snapshots.iter().map(|layer| Layer {
        layer: layer.layer(),
        reason: layer.health().err(),
        figures: Some(figures(&**layer)),
    });
    Report::new(layers.collect()).response()
}

#[derive(Serialize)]
struct Report {
    status: &'static str,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    layer: &'static str,
    /// Why calls cannot be served; `null` when they can.
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    figures: Option<Vec<Figure>>,
}

#[derive(Serialize)]
struct Figure {
    name: Cow<'static, str>,
    kind: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'static str, Cow<'static, str>>,
    value: f64,
}

impl Report {
    fn new(layers: Vec<Layer>) -> Self {
        let well = layers.iter().all(|layer| layer.reason.is_none());
        Self {
            status: if well { "ok" } else { "unavailable" },
            layers,
        }
    }

    fn response(&self) -> Response<ServeBody> {
        let status = match self.status {
            "ok" => StatusCode::OK,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let json = serde_json::to_vec(self).unwrap_or_default();
        reply::json_response(status, json)
    }
}

fn figures(layer: &dyn Snapshot) -> Vec<Figure> {
    let figures = layer.figures().into_iter().map(|figure| Figure {
        name: figure.name,
        kind: match figure.kind {
            FigureKind::Counter => "counter",
            _ => "gauge",
        },
        labels: figure.labels.into_iter().collect(),
        value: figure.value,
    });
    figures.collect()
}
