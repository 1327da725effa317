//! What a watch has to say to whoever runs it: each thing once.

use std::{collections::HashMap, fmt::Write as _};

use fairlead_model::ObjectName;
use kube::runtime::watcher;

use crate::objects::{Indexed, Kind};

/// Why a kind is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Right {
    /// Without it nothing is told at all.
    Needed,
    /// Who may not read it, or whose API server has none, does without and lacks this.
    Wanted(&'static str),
}

/// What has been said about one kind.
pub(super) struct Said {
    /// The kind as a URL names it.
    plural: String,
    right: Right,
    /// All of the kind was there once, or is done without.
    listed: bool,
    /// Why it is interrupted.
    interrupted: Option<String>,
    /// Faults of objects that have some.
    faults: HashMap<ObjectName, Vec<String>>,
}

impl Said {
    pub(super) fn new(plural: String, right: Right) -> Self {
        Self { plural, right, listed: false, interrupted: None, faults: HashMap::new() }
    }

    /// What is new to say about an event.
    pub(super) fn event<K: Indexed>(&mut self, event: &watcher::Event<K>) -> Vec<String> {
        match event {
            // Every attempt to list begins with one.
            watcher::Event::Init => return Vec::new(),
            watcher::Event::InitDone => self.listed = true,
            watcher::Event::Delete(object) => {
                self.faults.remove(&Kind::of(&object.delete()).1);
            }
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                self.interrupted = None;
                return self.object(object);
            }
        }
        self.interrupted = None;
        Vec::new()
    }

    /// One warning for an object that has new faults.
    fn object<K: Indexed>(&mut self, object: &K) -> Vec<String> {
        let faults = object.faults();
        let name = Kind::of(&object.delete()).1;
        let known = self.faults.remove(&name);
        if faults.is_empty() {
            return Vec::new();
        }
        let warning = (known.as_ref() != Some(&faults)).then(|| {
            let mut warning = format!("{}/", self.plural);
            if !name.namespace.is_empty() {
                let _ = write!(warning, "{}/", name.namespace);
            }
            let _ = write!(warning, "{}: {}", name.name, faults.join("; "));
            warning
        });
        self.faults.insert(name, faults);
        warning.into_iter().collect()
    }

    /// What is new to say about an error, and whether the kind counts as listed and empty from now on.
    pub(super) fn error(&mut self, error: &watcher::Error) -> (Option<String>, bool) {
        let code = code(error);
        let forbidden = code == Some(FORBIDDEN);
        let mut does_without = false;
        let warning = match self.right {
            Right::Wanted(without) if forbidden || code == Some(NOT_FOUND) => {
                does_without = !std::mem::replace(&mut self.listed, true);
                let why = match forbidden {
                    true => "these credentials may not list and watch",
                    false => "the API server does not have",
                };
                format!("{why} {}: {without}", self.plural)
            }
            Right::Needed if forbidden => format!(
                "these credentials may not list and watch {}, without which nothing is served; allow it: {error}",
                self.plural
            ),
            _ => format!("the watch of {} is interrupted; it is resumed: {error}", self.plural),
        };
        let news = self.interrupted.as_ref() != Some(&warning);
        self.interrupted = Some(warning.clone());
        (news.then_some(warning), does_without)
    }
}

const FORBIDDEN: u16 = 403;
const NOT_FOUND: u16 = 404;

/// The API server's answer, if it was one.
fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::{core::Status, runtime::watcher::Event};
    use serde_json::json;

    use super::*;

    fn failed(code: u16) -> watcher::Error {
        let status = Status { code, message: format!("said with {code}"), ..Status::default() };
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    fn service(ranges: &[&str]) -> Service {
        let object = json!({"metadata": {"namespace": "demo", "name": "echo"},
                            "spec": {"loadBalancerSourceRanges": ranges}});
        serde_json::from_value(object).expect("a service")
    }

    #[test]
    fn what_may_not_be_read_is_said_once_and_done_without() {
        let mut said = Said::new("pods".into(), Right::Wanted("this is missing"));
        let warning = "these credentials may not list and watch pods: this is missing".to_owned();
        assert_eq!(said.error(&failed(403)), (Some(warning), true));
        said.event(&Event::<Service>::Init);
        assert_eq!(said.error(&failed(403)), (None, false), "it is tried again without a word");
        let (other, does_without) = said.error(&failed(500));
        assert!(other.expect("another cause").contains("said with 500") && !does_without);
    }

    #[test]
    fn a_kind_that_the_api_server_does_not_have_is_done_without() {
        let mut said = Said::new("servicecidrs".into(), Right::Wanted("this is missing"));
        let warning = "the API server does not have servicecidrs: this is missing".to_owned();
        assert_eq!(said.error(&failed(404)), (Some(warning), true));
        assert_eq!(said.error(&failed(404)), (None, false), "said once");
        let (warning, does_without) = Said::new("services".into(), Right::Needed).error(&failed(404));
        assert!(warning.expect("a warning").contains("said with 404") && !does_without);
    }

    #[test]
    fn what_was_known_stays_known_when_the_right_to_read_it_ends() {
        let mut said = Said::new("pods".into(), Right::Wanted("this is missing"));
        said.event(&Event::<Service>::InitDone);
        let (warning, does_without) = said.error(&failed(403));
        assert!(warning.is_some() && !does_without);
    }

    #[test]
    fn without_what_is_needed_nothing_is_listed() {
        let mut said = Said::new("services".into(), Right::Needed);
        let (warning, does_without) = said.error(&failed(403));
        let warning = warning.expect("a warning");
        assert!(warning.contains("may not list and watch services") && warning.contains("said with 403"));
        assert!(!does_without);
        said.event(&Event::<Service>::InitDone);
        assert!(said.error(&failed(403)).0.is_some(), "what comes back is said again");
    }

    #[test]
    fn an_object_with_faults_is_named_once_until_it_changes() {
        let mut said = Said::new("services".into(), Right::Needed);
        let bad = || Event::Apply(service(&["nonsense"]));
        let warnings = said.event(&bad());
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("services/demo/echo: ") && warnings[0].contains("\"nonsense\""));
        assert_eq!(said.event(&bad()), Vec::<String>::new(), "the same");
        assert_eq!(said.event(&Event::Apply(service(&["other"]))).len(), 1, "another fault");
        assert_eq!(said.event(&Event::Apply(service(&[]))).len(), 0, "mended");
        assert_eq!(said.event(&bad()).len(), 1, "and broken again");
        said.event(&Event::Delete(service(&[])));
        assert_eq!(said.event(&bad()).len(), 1, "another object of the same name");
    }
}
