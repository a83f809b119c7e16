//! HTTP: routes, and what each gives. Documented for users in docs/http.md.

mod access;
mod batch;
mod body;
mod cluster;
mod events;
pub mod fuzz;
mod key;
mod layout;
mod listing;
mod metrics;
mod page;
mod problem;
mod store;
mod values;

use std::sync::Arc;

use axum::{
    Router,
    http::{Method, StatusCode, Uri},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{any, get},
};

pub use self::events::event_routes;
use self::problem::Problem;
use crate::Gateway;

/// All routes of a node or proxy.
pub(crate) fn routes(gateway: Arc<Gateway>) -> Router {
    metrics::begin();
    let process = gateway.serving.links().me.as_str();
    let events = event_routes(gateway.options.events.clone(), process);
    let routes = Router::new()
        .route("/", get(page::on_page).fallback(on_other_method))
        .route("/page/{part}", get(page::on_part).fallback(on_other_method))
        .route("/values/", any(listing::on_listing))
        .route("/values/{*key}", any(values::on_values))
        .route("/batch", any(batch::on_batch))
        .route("/store/", any(store::on_store))
        .route("/store/{*key}", any(store::on_store))
        .route("/stat/", any(values::on_stat))
        .route("/stat/{*key}", any(values::on_stat))
        .route("/healthz", get(cluster::on_healthz).fallback(on_other_method))
        .route("/readyz", get(cluster::on_readyz).fallback(on_other_method))
        .route("/metrics", get(metrics::on_metrics).fallback(on_other_method))
        .route("/cluster", get(cluster::on_cluster).fallback(on_other_method))
        .fallback(on_nothing)
        .with_state(gateway.clone())
        .merge(events);
    match gateway.options.access {
        Some(_) => routes.layer(from_fn_with_state(gateway, access::admit)),
        None => routes,
    }
}

async fn on_other_method() -> Problem {
    Problem::method("GET, HEAD")
}

async fn on_nothing(method: Method, uri: Uri) -> Response {
    let path = uri.path();
    Problem::new(StatusCode::NOT_FOUND, "nothing here")
        .detail(format!(
            "{method} {path} is unknown; there are /, /values/<key>, /values/?prefix=, /stat/<key>, \
             /store/<key>, /batch, /cluster, /events, /log-level, /metrics, /healthz and /readyz"
        ))
        .into_response()
}
