//! In which form a client wants its answer, from `Accept`.

use http::header::{ACCEPT, HeaderMap};

use crate::error::ApiError;
use crate::protobuf;
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
    /// The object or list as protobuf.
    Protobuf,
    /// `PartialObjectMetadata` or a list of them, as protobuf.
    PartialProtobuf,
}

impl Form {
    /// Whether bodies are protobuf.
    pub(crate) fn is_protobuf(self) -> bool {
        matches!(self, Self::Protobuf | Self::PartialProtobuf)
    }
}

/// A media type of `Accept` and its parameters.
struct Media<'a> {
    essence: &'a str,
    params: Vec<(&'a str, &'a str)>,
}

impl<'a> Media<'a> {
    fn all(headers: &'a HeaderMap) -> Vec<Self> {
        let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        let mut all: Vec<Self> = values.flat_map(|value| value.split(',')).map(Self::parse).collect();
        // What the client likes equally stays in its order.
        all.sort_by_key(|media| std::cmp::Reverse(media.quality()));
        all.retain(|media| media.quality() > 0);
        if headers.get(ACCEPT).is_none() { vec![Self { essence: "*/*", params: Vec::new() }] } else { all }
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

    /// How much the client likes it, in thousandths (RFC 9110, section 12.4.2).
    fn quality(&self) -> u32 {
        let quality = self.param("q").map_or(Some(1.0), |text| text.parse::<f32>().ok());
        (quality.unwrap_or(1.0).clamp(0.0, 1.0) * 1000.0) as u32
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
            None if media.essence == protobuf::MEDIA_TYPE => return Ok(Form::Protobuf),
            Some("Table") if meta_group && media.is_json() => {
                let include = query.get("includeObject").unwrap_or_default();
                let include = IncludeObject::from_query(include).ok_or_else(|| {
                    ApiError::BadRequest(format!("unrecognized includeObject value: {include:?}"))
                })?;
                return Ok(Form::Table(include));
            }
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if meta_group => {
                match media.essence {
                    protobuf::MEDIA_TYPE => return Ok(Form::PartialProtobuf),
                    _ if media.is_json() => return Ok(Form::Partial),
                    _ => {}
                }
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_first_form_that_can_be_made_is_taken() {
        let partial = "as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        let rows = [
            ("application/vnd.kubernetes.protobuf,application/json", Some(Form::Protobuf)),
            ("application/json, application/vnd.kubernetes.protobuf", Some(Form::Plain)),
            ("application/json;q=0.5, application/yaml;q=0.9, text/html", Some(Form::Yaml)),
            ("text/html, application/xml;q=0.9, */*;q=0.8", Some(Form::Plain)),
            (&format!("application/vnd.kubernetes.protobuf;{partial}"), Some(Form::PartialProtobuf)),
            (&format!("application/json;{partial}"), Some(Form::Partial)),
            (
                "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json",
                Some(Form::Plain),
            ),
            ("application/cbor", None),
            ("application/json;q=0", None),
        ];
        for (accept, expected) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_str(accept).expect("a header"));
            assert_eq!(form(&headers, &Query::default()).ok(), expected, "{accept}");
        }
        assert_eq!(form(&HeaderMap::new(), &Query::default()).ok(), Some(Form::Plain));
    }
}
