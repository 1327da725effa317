//! Label and field selectors: parsing, and matching objects against them.

mod field;
mod label;

pub use field::FieldSelector;
pub use label::{LabelSelector, Operator, Requirement};

/// Why a selector was refused; the text is what a client sees with the 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text of a selector cannot be read.
    #[error("unable to parse requirement: {0}")]
    Syntax(String),
    /// The kind cannot be selected by this field.
    #[error("field label not supported: {0}")]
    UnsupportedField(String),
    /// The kind can be selected by name and namespace only.
    #[error("{0:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")]
    UnknownField(String),
    /// A field selector's term is not `field=value`, `field==value` or `field!=value`.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    FieldSyntax {
        /// The whole selector.
        selector: String,
        /// The term that is wrong.
        term: String,
    },
    /// A `LabelSelector` object has an operator that does not exist.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
}
