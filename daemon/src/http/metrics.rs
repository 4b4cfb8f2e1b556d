//! `GET /metrics`, for the operator's Prometheus.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, Response, header},
};

use super::{app::App, connections::Connections};
use crate::metrics::{ByName, Histogram, Page, write_process};

/// What is counted of requests and connections, beside the counts of tenants.
pub(super) struct HttpStats {
    /// How long requests took, by route.
    times: ByName<Histogram>,
    connections: OnceLock<Vec<(&'static str, Arc<Connections>)>>,
    /// When the process was started, since 1970.
    started: Duration,
}

impl HttpStats {
    /// Counts of a process that starts now.
    pub(super) fn new() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { times: ByName::default(), connections: OnceLock::new(), started }
    }

    /// A request to `route` was answered after `time`.
    pub(super) fn answered(&self, route: &'static str, time: Duration) {
        self.times.with(route, |times| times.took(time));
    }

    /// Where the connections of each socket are counted. A second call changes nothing.
    pub(super) fn watch(&self, connections: Vec<(&'static str, Arc<Connections>)>) {
        let _ = self.connections.set(connections);
    }

    fn write(&self, page: &mut Page) {
        let mut times =
            page.histograms("vaultd_request_seconds", "How long requests took, from head to answer.");
        for (route, histogram) in self.times.sorted() {
            times.distribution(&[("route", route)], histogram);
        }
        let sockets = self.connections.get().map_or(&[][..], Vec::as_slice);
        let mut open = page.gauges("vaultd_connections", "Open connections.");
        for (socket, connections) in sockets {
            open.sample(&[("socket", socket)], connections.count());
        }
        let mut refused =
            page.counters("vaultd_connections_refused_total", "Connections that were one too many.");
        for (socket, connections) in sockets {
            refused.sample(&[("socket", socket)], connections.refused());
        }
        write_process(page, self.started);
    }
}

/// Everything that is counted, for Prometheus. On the admin socket only.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "admin",
    responses((status = 200, description = "Prometheus text format 0.0.4", content_type = "text/plain", body = String))
)]
pub(super) async fn metrics(State(app): State<App>) -> Response<Body> {
    const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let mut page = Page::default();
    page.gauges("vaultd_build_info", "1, and which vaultd it is.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    app.tenants().write(&mut page);
    app.auth().write_metrics(&mut page);
    app.vault().write_metrics(&mut page);
    app.audit().stats().write(&mut page);
    app.guards().stats().write(&mut page);
    app.stats().write(&mut page);
    let mut response = Response::new(Body::from(page.into_text()));
    response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
    response
}
