//! In which form a client wants its answer, from `Accept`.

use http::header::{ACCEPT, HeaderMap};

use crate::error::ApiError;
use crate::request::Query;
use crate::table::IncludeObject;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object or list as JSON.
    Plain,
    /// The object or list as YAML.
    Yaml,
    /// A `Table` for printing.
    Table(IncludeObject),
    /// `PartialObjectMetadata` or a list of them.
    Partial,
}

/// A media type of `Accept` and its parameters.
struct Media<'a> {
    essence: &'a str,
    params: Vec<(&'a str, &'a str)>,
}

impl<'a> Media<'a> {
    fn all(headers: &'a HeaderMap) -> Vec<Self> {
        let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        let all: Vec<Self> = values.flat_map(|value| value.split(',')).map(Self::parse).collect();
        if all.is_empty() { vec![Self { essence: "*/*", params: Vec::new() }] } else { all }
    }

    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        let params = parts.filter_map(|part| part.split_once('=')).collect();
        Self { essence, params }
    }

    fn param(&self, name: &str) -> Option<&'a str> {
        self.params.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn is_json(&self) -> bool {
        matches!(self.essence, "application/json" | "application/*" | "*/*" | "text/plain")
    }
}

/// The first form of `Accept` that an object can take.
pub(crate) fn form(headers: &HeaderMap, query: &Query) -> Result<Form, ApiError> {
    for media in Media::all(headers) {
        let meta_group = media.param("g") == Some("meta.k8s.io") && media.param("v") == Some("v1");
        match media.param("as") {
            None if media.is_json() => return Ok(Form::Plain),
            None if media.essence == "application/yaml" => return Ok(Form::Yaml),
            Some("Table") if meta_group && media.is_json() => {
                let include = query.get("includeObject").unwrap_or_default();
                let include = IncludeObject::from_query(include).ok_or_else(|| {
                    ApiError::BadRequest(format!("unrecognized includeObject value: {include:?}"))
                })?;
                return Ok(Form::Table(include));
            }
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if meta_group && media.is_json() => {
                return Ok(Form::Partial);
            }
            _ => {}
        }
    }
    Err(ApiError::NotAcceptable)
}

/// The version of the aggregated discovery document that a client asks for first, if it does.
pub(crate) fn discovery_version(headers: &HeaderMap) -> Option<&'static str> {
    for media in Media::all(headers).iter().filter(|media| media.is_json()) {
        match (media.param("as"), media.param("v")) {
            (Some("APIGroupDiscoveryList"), Some("v2")) => return Some("v2"),
            (Some("APIGroupDiscoveryList"), Some("v2beta1")) => return Some("v2beta1"),
            (None, _) => return None,
            _ => {}
        }
    }
    None
}
