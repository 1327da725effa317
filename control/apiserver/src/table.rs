//! Tables as kubectl asks for them: `application/json;as=Table;v=v1;g=meta.k8s.io`.
//!
//! The columns are rows of data in `table/columns.rs`; a cell is a path into the object or a pure function.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::resource::{Column, Resource};

mod cells;
pub(crate) mod columns;
mod duration;
mod pod;

pub use duration::human_duration;

/// What a row carries besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// The object's metadata, as a `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl IncludeObject {
    /// The value of the `includeObject` query parameter; `None` if it is not one.
    pub fn from_query(value: &str) -> Option<Self> {
        match value {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// Where a cell's value comes from.
#[derive(Debug, Clone, Copy)]
pub enum Cell {
    /// The value at a JSON pointer, or the empty string.
    At(&'static str),
    /// The time since the timestamp at a JSON pointer, or `<unknown>`.
    Age(&'static str),
    /// Anything else.
    Of(fn(&Value, Timestamp) -> Value),
}

/// The `Table` of some objects of one kind. The caller sets `metadata` (`resourceVersion`, `continue`).
pub fn table(resource: &Resource, objects: &[Value], now: Timestamp, include: IncludeObject) -> Value {
    let rows: Vec<Value> = objects.iter().map(|object| row(resource, object, now, include)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": headings(resource),
        "rows": rows,
    })
}

/// The `columnDefinitions` of a kind.
pub(crate) fn headings(resource: &Resource) -> Value {
    let describe = |column: &Column| {
        json!({
            "name": column.name,
            "type": column.kind,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    };
    resource.columns.iter().map(describe).collect()
}

/// One row of a kind's table.
pub(crate) fn row(resource: &Resource, object: &Value, now: Timestamp, include: IncludeObject) -> Value {
    let cells: Vec<Value> = resource.columns.iter().map(|column| column.cell.value(object, now)).collect();
    let mut row = json!({ "cells": cells });
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => row["object"] = partial_object_metadata(object),
        IncludeObject::Object => row["object"] = object.clone(),
    }
    row
}

/// The object's metadata alone, as `meta.k8s.io/v1` `PartialObjectMetadata`.
pub fn partial_object_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

impl Cell {
    fn value(&self, object: &Value, now: Timestamp) -> Value {
        match self {
            Self::At(pointer) => object.pointer(pointer).cloned().unwrap_or_else(|| json!("")),
            Self::Age(pointer) => json!(duration::age(object.pointer(pointer), now)),
            Self::Of(cell) => cell(object, now),
        }
    }
}

#[cfg(test)]
mod tests;
