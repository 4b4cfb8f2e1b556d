//! The head of the OpenAPI document, and what neither handlers nor wire types say: limits that are the vault's, and headers.

use utoipa::{
    Modify,
    openapi::{
        Components, Object, RefOr, Response, Schema, Type,
        header::HeaderBuilder,
        path::{Operation, PathItem},
        schema::SchemaType,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
        server::ServerBuilder,
    },
};

use crate::vault::{MAX_EXPIRES_IN_S, MAX_METADATA_NAME_BYTES, MAX_METADATA_NAMES, MAX_METADATA_TEXT_BYTES};

/// The head of the document; paths and schemas come from the handlers.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "vaultd",
        description = "A vault for payment-card numbers. JSON over HTTP/1.1 on a Unix socket; errors are RFC 9457 \
                       problems whose `code` is stable.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "http://localhost", description = "the Unix socket; the host name is not looked at")),
    tags((name = "admin", description = "On the admin socket, and not on the API's")),
    components(schemas(vault_api::Problem)),
    modifiers(&Bearer)
)]
pub(super) struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("An RS256 JWT of a configured issuer"))
            .build();
        if let Some(components) = &mut document.components {
            components.add_security_scheme("jwt", SecurityScheme::Http(scheme));
        }
    }
}

const REQUEST_ID: Field = ("x-request-id", Type::String, "The request's id, as in the daemon's log");
const RETRY_AFTER: Field = ("Retry-After", Type::Integer, "Seconds to wait");

/// A header field: name, type and what it says.
type Field = (&'static str, Type, &'static str);

/// Problems that come with fields of their own: status, description and fields.
const PROBLEMS: [(&str, &str, &[Field]); 3] = [
    (
        UNAUTHORIZED,
        "There is no JWT, or it is not accepted",
        &[("WWW-Authenticate", Type::String, "`Bearer error=…` (RFC 6750, 3)")],
    ),
    (
        "429",
        "Too many requests",
        &[
            RETRY_AFTER,
            ("RateLimit-Policy", Type::String, "The limit (draft-ietf-httpapi-ratelimit-headers)"),
            ("RateLimit", Type::String, "What is left of it, and when there is more"),
        ],
    ),
    ("503", "The vault, or what it needs, is away or has too much to do", &[RETRY_AFTER]),
];

/// Where no JWT is asked for, none is refused.
const UNAUTHORIZED: &str = "401";

/// Adds what the admin socket has and the API's has not, which is said of each.
pub(super) fn add_admin(document: &mut utoipa::openapi::OpenApi, mut admin: utoipa::openapi::OpenApi) {
    const WHERE: &str = "On the admin socket.";
    admin.paths.paths.retain(|path, _| !document.paths.paths.contains_key(path));
    for item in admin.paths.paths.values_mut() {
        let server =
            ServerBuilder::new().url("http://localhost").description(Some("the admin socket")).build();
        item.servers = Some(vec![server]);
        for operation in operations(item) {
            let more = operation.description.take();
            operation.description = Some(more.map_or(WHERE.to_owned(), |more| format!("{WHERE} {more}")));
        }
    }
    // What it says of itself is said of the document already.
    (admin.servers, admin.tags) = (None, None);
    document.merge(admin);
}

/// Adds what cannot be said where the document comes from. An envelope may live for `max_envelope_s` seconds.
pub(super) fn complete(document: &mut utoipa::openapi::OpenApi, max_envelope_s: u64) {
    if let Some(components) = &mut document.components {
        limit_values(components, max_envelope_s);
    }
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        name_problems(operation);
        for response in operation.responses.responses.values_mut() {
            add_fields(response, &[REQUEST_ID]);
        }
    }
}

/// Every operation on a path.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

fn name_problems(operation: &mut Operation) {
    let is_open = operation.security.is_none();
    let responses = &mut operation.responses.responses;
    // Whatever has no problem at all does not fail.
    let Some(problem) = responses.get("default").cloned() else { return };
    for (status, description, fields) in PROBLEMS {
        if status == UNAUTHORIZED && is_open {
            continue;
        }
        let mut response = problem.clone();
        if let RefOr::T(response) = &mut response {
            description.clone_into(&mut response.description);
        }
        add_fields(&mut response, fields);
        responses.entry(status.to_owned()).or_insert(response);
    }
}

fn add_fields(response: &mut RefOr<Response>, fields: &[Field]) {
    let RefOr::T(response) = response else { return };
    for (name, kind, description) in fields {
        let schema = Object::with_type(SchemaType::new(kind.clone()));
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(*description)).build();
        response.headers.insert((*name).to_owned(), header.into());
    }
}

/// Lengths are counted in characters here, and in bytes by the vault: nothing that is let in is outside of these.
fn limit_values(components: &mut Components, max_envelope_s: u64) {
    for (name, most) in [
        ("TokenizeRequest", MAX_EXPIRES_IN_S),
        ("TokenPatch", MAX_EXPIRES_IN_S),
        ("SealEnvelopeRequest", max_envelope_s),
    ] {
        let request = components.schemas.get_mut(name).and_then(object);
        let expires_in = request.and_then(|request| request.properties.get_mut("expires_in"));
        if let Some(expires_in) = expires_in.and_then(object) {
            expires_in.maximum = Some(most.into());
        }
    }
    if let Some(metadata) = components.schemas.get_mut("Metadata").and_then(object) {
        metadata.max_properties = Some(MAX_METADATA_NAMES);
        let mut name = Object::with_type(Type::String);
        (name.min_length, name.max_length) = (Some(1), Some(MAX_METADATA_NAME_BYTES));
        metadata.property_names = Some(Box::new(name.into()));
    }
    if let Some(RefOr::T(Schema::OneOf(value))) = components.schemas.get_mut("MetadataValue") {
        let text = SchemaType::new(Type::String);
        for value in value.items.iter_mut().filter_map(object).filter(|value| value.schema_type == text) {
            value.max_length = Some(MAX_METADATA_TEXT_BYTES);
        }
    }
}

fn object(schema: &mut RefOr<Schema>) -> Option<&mut Object> {
    match schema {
        RefOr::T(Schema::Object(object)) => Some(object),
        _ => None,
    }
}
