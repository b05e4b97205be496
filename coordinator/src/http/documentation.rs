//! The API's description, made from the handlers.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{public, worker};

#[derive(OpenApi)]
#[openapi(
    info(title = "Slipway", description = "Builds Dockerfiles on a farm, one job per stage."),
    paths(
        public::negotiate_context,
        public::submit_build,
        public::list_builds,
        public::check_file,
        public::show_plan,
        public::get_build,
        public::get_stages,
        public::cancel_build,
        public::retry_build,
        public::purge_build,
        public::list_projects,
        public::set_project,
        public::explain_build,
        public::poll_agent,
        public::answer_agent,
        public::follow_build,
        public::read_logs,
        public::list_workers,
        worker::enrol,
        worker::sync,
        worker::objects,
        worker::suspect,
        worker::logs,
        worker::steps,
        worker::slices,
        worker::done,
        worker::look_up,
        worker::result,
        worker::tags,
        worker::agent,
    ),
    components(schemas(api::Problem)),
    modifiers(&Token)
)]
struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The OpenAPI document as JSON.
pub fn openapi() -> serde_json::Result<String> {
    Document::openapi().to_pretty_json()
}
