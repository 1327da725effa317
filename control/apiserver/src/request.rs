//! What a request asks for, read from its method, path and query.

use std::num::{IntErrorKind, ParseIntError};

use http::request::Parts;
use http::{Method, Uri};

use crate::error::ApiError;

/// What a request is about (apiserver `pkg/endpoints/request/requestinfo.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; the HTTP method in small
    /// letters when the path is not about an object.
    pub verb: &'static str,
    /// The path.
    pub path: String,
    /// The object or collection that the path names, if it does.
    pub target: Option<Target>,
    /// The parameters.
    pub query: Query,
    /// Whether a component of this process asks ([`InThisProcess`]).
    pub in_this_process: bool,
}

/// Marks the requests of components of this process. They read all objects of the largest kinds and have no use for
/// `managedFields`, so their lists and watches are without.
#[derive(Clone, Copy, Debug)]
pub struct InThisProcess;

/// The object or collection of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version within the group.
    pub version: String,
    /// The kind's name in paths, such as `pods`.
    pub resource: String,
    /// The namespace, if the path has one.
    pub namespace: Option<String>,
    /// The object, if the path has one.
    pub name: Option<String>,
    /// Such as `status`.
    pub subresource: Option<String>,
}

/// The parameters of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl RequestInfo {
    /// Reads the request line.
    pub fn parse(parts: &Parts) -> Result<Self, ApiError> {
        let mut query = Query::parse(&parts.uri)?;
        let path = parts.uri.path().to_owned();
        let mut target = Target::parse(&path);
        if parts.method == Method::GET
            && let Some(watched) = without_watch(&path)
        {
            target = Target::parse(&watched);
            query.watch(target.as_mut().and_then(|target| target.name.take()));
        }
        let verb = verb(&parts.method, target.as_ref(), &query)?;
        let in_this_process = parts.extensions.get::<InThisProcess>().is_some();
        Ok(Self { verb, path, target, query, in_this_process })
    }
}

impl Target {
    fn parse(path: &str) -> Option<Self> {
        let mut words = path.split('/').filter(|word| !word.is_empty());
        let (group, version) = match words.next()? {
            "api" => ("", words.next()?),
            "apis" => (words.next()?, words.next()?),
            _ => return None,
        };
        let mut target = Self { group: group.to_owned(), version: version.to_owned(), ..Self::default() };
        let mut words = words.map(decode);
        let first = words.next()?;
        if first != "namespaces" {
            target.resource = first;
            target.name = words.next();
            target.subresource = words.next();
            return Some(target);
        }
        target.namespace = words.next();
        match words.next() {
            // The namespace itself, or a subresource of it.
            None => {
                target.resource = first;
                target.name = target.namespace.take();
            }
            Some(word) if word == "status" || word == "finalize" => {
                target.resource = first;
                target.name = target.namespace.take();
                target.subresource = Some(word);
            }
            Some(word) => {
                target.resource = word;
                target.name = words.next();
                target.subresource = words.next();
            }
        }
        Some(target)
    }
}

impl Query {
    pub(crate) fn parse(uri: &Uri) -> Result<Self, ApiError> {
        axum::extract::Query::try_from_uri(uri)
            .map(|query| Self(query.0))
            .map_err(|error| ApiError::BadRequest(format!("cannot read the query: {error}")))
    }

    /// Asks for a watch, of one object if it is named.
    fn watch(&mut self, name: Option<String>) {
        self.0.retain(|(key, _)| key != "watch");
        self.0.push(("watch".to_owned(), "true".to_owned()));
        if let Some(name) = name {
            self.0.retain(|(key, _)| key != "fieldSelector");
            self.0.push(("fieldSelector".to_owned(), format!("metadata.name={name}")));
        }
    }

    /// The first value of a parameter, if it is there and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether a parameter is there, with or without a value.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// All values of a parameter that are not empty.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        let values = self.0.iter().filter(|(key, value)| key == name && !value.is_empty());
        values.map(|(_, value)| value.as_str()).collect()
    }

    /// A boolean parameter: whatever is there is true, also without a value, but for `0` and `false` (apimachinery
    /// `Convert_Slice_string_To_bool`).
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.is_some_and(|(_, value)| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// A whole number; what a negative one means is the parameter's.
    pub fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let parse = |text: &str| {
            text.parse().map_err(|error: ParseIntError| {
                let problem = match error.kind() {
                    IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                ApiError::BadRequest(format!("strconv.ParseInt: parsing {text:?}: {problem}"))
            })
        };
        self.get(name).map(parse).transpose()
    }

    /// Whether the request is only tried.
    #[must_use]
    pub fn dry_run(&self) -> bool {
        self.get("dryRun").is_some()
    }
}

/// The path of what an old path of a watch, such as `/api/v1/watch/pods`, is about.
fn without_watch(path: &str) -> Option<String> {
    let mut words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    let at = if words.first() == Some(&"apis") { 3 } else { 2 };
    let is_one = words.get(at) == Some(&"watch") && words.len() > at + 1;
    is_one.then(|| {
        words.remove(at);
        format!("/{}", words.join("/"))
    })
}

fn verb(method: &Method, target: Option<&Target>, query: &Query) -> Result<&'static str, ApiError> {
    let named = target.is_some_and(|target| target.name.is_some());
    let plain = target.is_none();
    Ok(match *method {
        Method::GET | Method::HEAD if plain || named => "get",
        Method::GET | Method::HEAD if query.flag("watch") => "watch",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if plain || named => "delete",
        Method::DELETE => "deletecollection",
        _ => return Err(ApiError::MethodNotAllowed),
    })
}

/// Percent-decoding of one path segment; what is not UTF-8 then names no object.
fn decode(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, uri: &str) -> RequestInfo {
        let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
        RequestInfo::parse(&request.into_parts().0).unwrap()
    }

    #[test]
    fn paths_name_objects_and_collections() {
        // method, uri → verb group/version resource namespace name subresource
        let rows = [
            ("GET", "/api/v1/pods", "list /v1 pods - - -"),
            ("GET", "/api/v1/pods?watch=true", "watch /v1 pods - - -"),
            ("GET", "/api/v1/namespaces", "list /v1 namespaces - - -"),
            ("GET", "/api/v1/namespaces/a", "get /v1 namespaces - a -"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update /v1 namespaces - a finalize"),
            ("POST", "/api/v1/namespaces/a/pods", "create /v1 pods a - -"),
            ("POST", "/api/v1/namespaces/a/pods/b/binding", "create /v1 pods a b binding"),
            ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection /v1 pods a - -"),
            ("DELETE", "/api/v1/namespaces/a/pods/b", "delete /v1 pods a b -"),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                "patch apps/v1 deployments a b scale",
            ),
            ("GET", "/api/v1/nodes/n%2E1", "get /v1 nodes - n.1 -"),
            ("GET", "/api/v1/watch/pods", "watch /v1 pods - - -"),
            ("GET", "/api/v1/watch/namespaces/a/pods?watch=0", "watch /v1 pods a - -"),
            ("GET", "/apis/apps/v1/watch/deployments", "watch apps/v1 deployments - - -"),
            ("POST", "/api/v1/watch/pods", "create /v1 watch - pods -"),
        ];
        for (method, uri, expected) in rows {
            let info = info(method, uri);
            let target = info.target.unwrap();
            let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let found = format!(
                "{} {}/{} {} {} {} {}",
                info.verb,
                target.group,
                target.version,
                target.resource,
                dash(target.namespace),
                dash(target.name),
                dash(target.subresource)
            );
            assert_eq!(found, expected, "{uri}");
        }
    }

    #[test]
    fn parameters_are_read_as_upstream_reads_them() {
        // Query, `x` as a flag, and as a number.
        let rows = [
            ("", false, Ok(None)),
            ("x", true, Ok(None)),
            ("x=", true, Ok(None)),
            ("x=true", true, Err("strconv.ParseInt: parsing \"true\": invalid syntax")),
            ("x=nonsense", true, Err("strconv.ParseInt: parsing \"nonsense\": invalid syntax")),
            ("x=False", false, Err("strconv.ParseInt: parsing \"False\": invalid syntax")),
            ("x=0", false, Ok(Some(0))),
            ("x=-1", true, Ok(Some(-1))),
            ("x=5&x=6", true, Ok(Some(5))),
            (
                "x=9223372036854775808",
                true,
                Err("strconv.ParseInt: parsing \"9223372036854775808\": value out of range"),
            ),
        ];
        for (text, flag, number) in rows {
            let query = Query::parse(&format!("/?{text}").parse().unwrap()).unwrap();
            let found = query.number("x").map_err(|error| error.to_string());
            assert_eq!((query.flag("x"), found), (flag, number.map_err(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn an_old_path_of_one_object_watches_that_object() {
        for uri in ["/api/v1/watch/namespaces/a/pods/b", "/api/v1/watch/nodes/b?fieldSelector=x%3Dy"] {
            let info = info("GET", uri);
            assert_eq!(
                (info.verb, info.query.get("fieldSelector")),
                ("watch", Some("metadata.name=b")),
                "{uri}"
            );
        }
    }

    #[test]
    fn discovery_paths_name_no_object() {
        for uri in ["/api", "/apis", "/api/v1", "/apis/apps/v1", "/version/", "/healthz"] {
            assert_eq!(info("GET", uri).target, None, "{uri}");
        }
    }
}
