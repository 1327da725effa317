//! Answers to questions about who asks and what they may do.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::api::{Call, warn};
use crate::authn::{self, Identity};
use crate::body::{self, Body};
use crate::error::ApiError;
use crate::object;
use crate::resource::{FieldError, REVIEWS};
use crate::verbs::admit;
use crate::{component_status, subresource};

/// What becomes the status of a question, or what is wrong with the question.
type Answer = fn(&Identity, &Value) -> Result<Value, FieldError>;

/// The kinds of questions.
const ANSWERS: &[(&str, Answer)] = &[
    ("SelfSubjectReview", who_am_i),
    ("SelfSubjectAccessReview", may_i),
    ("SelfSubjectRulesReview", what_may_i),
    ("SubjectAccessReview", may_they),
    ("LocalSubjectAccessReview", may_they),
];

/// Answers about a kind of which nothing is stored; `None` if the call is about any other.
pub(crate) async fn answer(call: &Call<'_>) -> Option<Result<Response<Body>, ApiError>> {
    let review = REVIEWS.iter().find(|review| std::ptr::eq(*review, call.resource))?;
    Some(match ANSWERS.iter().find(|(kind, _)| *kind == review.kind) {
        Some((_, answer)) => respond(call, *answer),
        None if review.kind == "Binding" => subresource::bind(call).await,
        None => component_status::answer(call).await,
    })
}

fn respond(call: &Call<'_>, answer: Answer) -> Result<Response<Body>, ApiError> {
    if call.info.verb != "create" || call.target.name.is_some() {
        return Err(ApiError::MethodNotAllowed);
    }
    let (mut review, duplicates) = body::parse_strict(call.headers, &call.body)?;
    let warnings = admit::incoming(call, &mut review, &duplicates)?;
    review["status"] = answer(call.identity, &review["spec"]).map_err(|error| ApiError::Invalid {
        resource: call.resource,
        name: object::meta(&review, "name").to_owned(),
        errors: vec![error],
    })?;
    let mut response = call.respond_other(StatusCode::CREATED, &review)?;
    warn(&mut response, &warnings);
    Ok(response)
}

fn who_am_i(identity: &Identity, _spec: &Value) -> Result<Value, FieldError> {
    Ok(json!({ "userInfo": { "username": identity.user, "groups": identity.groups } }))
}

fn may_i(identity: &Identity, spec: &Value) -> Result<Value, FieldError> {
    one_question(spec)?;
    Ok(decision(identity))
}

fn may_they(_identity: &Identity, spec: &Value) -> Result<Value, FieldError> {
    one_question(spec)?;
    let user = spec["user"].as_str().unwrap_or_default();
    let groups: Vec<String> = spec["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if user.is_empty() && groups.is_empty() {
        let detail = "at least one of user or group must be specified";
        return Err(FieldError::invalid("spec.user", &json!(""), detail));
    }
    Ok(decision(&Identity { user: user.to_owned(), groups }))
}

fn what_may_i(identity: &Identity, spec: &Value) -> Result<Value, FieldError> {
    if spec["namespace"].as_str().unwrap_or_default().is_empty() {
        return Err(FieldError::required(
            "spec.namespace",
            "the namespace is needed to know which rules hold",
        ));
    }
    let rules = authn::rules(identity);
    let (resources, others): (Vec<Value>, Vec<Value>) = rules.iter().map(|rule| rule.to_values()).unzip();
    Ok(json!({ "resourceRules": resources, "nonResourceRules": others, "incomplete": false }))
}

fn decision(identity: &Identity) -> Value {
    let allowed = !authn::rules(identity).is_empty();
    json!({ "allowed": allowed, "reason": if allowed { authn::REASON } else { "" } })
}

/// A question is about resources or about a path, and not about both.
fn one_question(spec: &Value) -> Result<(), FieldError> {
    let asked = [&spec["resourceAttributes"], &spec["nonResourceAttributes"]];
    if asked.iter().filter(|attributes| !attributes.is_null()).count() == 1 {
        return Ok(());
    }
    let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
    Err(FieldError::invalid("spec.resourceAttributes", asked[0], detail))
}
