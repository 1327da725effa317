//! What is wrong with a field, in upstream's words.

use std::fmt;

use serde_json::Value;

/// Why a field was refused, as clients read it in `details.causes[].reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorReason {
    /// The field must be set.
    Required,
    /// The value does not have the right form.
    Invalid,
    /// The value is not one of those allowed.
    NotSupported,
    /// Another element has this value already.
    Duplicate,
    /// The field may not be set, or not be changed, here.
    Forbidden,
    /// The value has too many characters or bytes.
    TooLong,
    /// The list has too many elements.
    TooMany,
    /// The value names something that is not there.
    NotFound,
    /// It is not the field's fault.
    Internal,
}

impl FieldErrorReason {
    /// The `reason` of a `StatusCause`.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::Internal => "InternalError",
        }
    }
}

/// One field that is wrong. `Display` gives `field: message`, as in the message of a 422.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Why.
    pub reason: FieldErrorReason,
    /// Where, such as `spec.containers[0].image`.
    pub field: String,
    /// What, such as `Required value`; this is the `message` of a `StatusCause`.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl FieldError {
    /// The field must be set; `detail` may be empty.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new(FieldErrorReason::Required, field, with_detail("Required value", detail))
    }

    /// The value does not have the right form.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new(FieldErrorReason::Invalid, field, with_detail(&format!("Invalid value: {value}"), detail))
    }

    /// The value is not one of `supported`.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let mut sorted: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        sorted.sort_unstable();
        let message = format!("Unsupported value: {value}: supported values: {}", sorted.join(", "));
        Self::new(FieldErrorReason::NotSupported, field, message)
    }

    /// The value names something that is not there.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::new(FieldErrorReason::NotFound, field, format!("Not found: {value}"))
    }

    /// The field cannot be given a value.
    pub fn internal(field: impl Into<String>, detail: &str) -> Self {
        Self::new(FieldErrorReason::Internal, field, with_detail("Internal error", detail))
    }

    /// Another element has this value already.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(FieldErrorReason::Duplicate, field, format!("Duplicate value: {value}"))
    }

    /// The field may not be set, or not be changed, here.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(FieldErrorReason::Forbidden, field, with_detail("Forbidden", detail))
    }

    /// The value has more than `bytes_max` bytes.
    pub fn too_long(field: impl Into<String>, bytes_max: usize) -> Self {
        let message = format!("Too long: may not be more than {bytes_max} bytes");
        Self::new(FieldErrorReason::TooLong, field, message)
    }

    /// The list has more than `count_max` elements.
    pub fn too_many(field: impl Into<String>, count: usize, count_max: usize) -> Self {
        let message = format!("Too many: {count}: must have at most {count_max} items");
        Self::new(FieldErrorReason::TooMany, field, message)
    }

    fn new(reason: FieldErrorReason, field: impl Into<String>, message: String) -> Self {
        Self { reason, field: field.into(), message }
    }
}

/// The errors as upstream joins them in the message of a 422: one as it is, several as `[a, b]`.
pub fn aggregate(errors: &[FieldError]) -> String {
    let mut seen: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let text = error.to_string();
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    match seen.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

fn with_detail(head: &str, detail: &str) -> String {
    if detail.is_empty() { head.to_owned() } else { format!("{head}: {detail}") }
}
