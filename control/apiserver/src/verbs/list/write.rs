//! A list in the form that a client asks for, written piece by piece.

use bytes::{BufMut, BytesMut};
use fairlead_store::Entry;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::Call;
use crate::error::ApiError;
use crate::negotiate::Form;
use crate::object::{self, Owners};
use crate::protobuf::ListWriter;
use crate::resource::Resource;
use crate::table;

/// Writes one list: what comes before the items, the items, what comes after them.
#[derive(Debug)]
pub(super) struct Writer {
    resource: &'static Resource,
    form: Form,
    owners: Owners,
    now: Timestamp,
    /// Whether there has been an item.
    any: bool,
}

impl Writer {
    pub(super) fn new(call: &Call<'_>, form: Form) -> Self {
        let (resource, owners) = (call.resource, call.owners());
        Self { resource, form, owners, now: Timestamp::now(), any: false }
    }

    /// What comes before the items, with the metadata if it is known, and of protobuf with how long all items are.
    pub(super) fn head(&self, metadata: Option<&Value>, items_len: usize) -> Result<BytesMut, ApiError> {
        let mut head = self.type_meta();
        if let Some(metadata) = metadata {
            head["metadata"] = metadata.clone();
        }
        let text = match self.form {
            Form::Plain | Form::Partial => object_open(&head, "items"),
            Form::Table(_) => {
                head["columnDefinitions"] = table::headings(self.resource);
                object_open(&head, "rows")
            }
            Form::Yaml => yaml(&head)?,
            Form::Protobuf | Form::PartialProtobuf => {
                let metadata = metadata.unwrap_or(&Value::Null);
                return Ok(self.protobuf()?.head(metadata, items_len)?.as_slice().into());
            }
        };
        Ok(text.as_bytes().into())
    }

    /// The next items.
    pub(super) fn items(&mut self, out: &mut BytesMut, entries: &[Entry]) -> Result<(), ApiError> {
        match self.form {
            Form::Yaml => {
                if entries.is_empty() {
                    return Ok(());
                }
                if !self.any {
                    out.put_slice(b"items:\n");
                }
                let objects = entries.iter().map(|entry| self.decode(entry)).collect::<Result<_, _>>()?;
                out.put_slice(yaml(&Value::Array(objects))?.as_bytes());
            }
            Form::Protobuf | Form::PartialProtobuf => {
                let writer = self.protobuf()?;
                for entry in entries {
                    writer.put_item(out, &self.decode(entry)?)?;
                }
            }
            Form::Plain | Form::Partial | Form::Table(_) => {
                let bytes: usize = entries.iter().map(|entry| entry.value.len() + 48).sum();
                out.reserve(bytes);
                for (index, entry) in entries.iter().enumerate() {
                    if self.any || index > 0 {
                        out.put_u8(b',');
                    }
                    self.json_item(out, entry)?;
                }
            }
        }
        self.any |= !entries.is_empty();
        Ok(())
    }

    /// What comes after the items, with the metadata if it was not known before.
    pub(super) fn tail(&self, out: &mut BytesMut, metadata: Option<&Value>) -> Result<(), ApiError> {
        match (self.form, metadata) {
            (Form::Protobuf | Form::PartialProtobuf, _) => {}
            (Form::Yaml, metadata) => {
                if !self.any {
                    out.put_slice(b"items: []\n");
                }
                if let Some(metadata) = metadata {
                    out.put_slice(yaml(&json!({ "metadata": metadata }))?.as_bytes());
                }
            }
            (_, None) => out.put_slice(b"]}"),
            (_, Some(metadata)) => out.put_slice(format!("],\"metadata\":{metadata}}}").as_bytes()),
        }
        Ok(())
    }

    fn type_meta(&self) -> Value {
        let (kind, version) = match self.form {
            Form::Table(_) => ("Table", META),
            Form::Partial | Form::PartialProtobuf => (PARTIAL, META),
            Form::Plain | Form::Yaml | Form::Protobuf => {
                (self.resource.list_kind, &*self.resource.api_version())
            }
        };
        json!({ "kind": kind, "apiVersion": version })
    }

    fn protobuf(&self) -> Result<ListWriter<'_>, ApiError> {
        Ok(match self.form {
            Form::PartialProtobuf => ListWriter::partial(PARTIAL),
            _ => ListWriter::of(self.resource.api_version(), self.resource.list_kind)?,
        })
    }

    /// An object as this form looks at it.
    fn decode(&self, entry: &Entry) -> Result<Value, ApiError> {
        object::decode(self.resource, &entry.value, entry.mod_revision)
    }

    fn json_item(&self, out: &mut BytesMut, entry: &Entry) -> Result<(), ApiError> {
        let (stored, revision) = (&entry.value, entry.mod_revision);
        match self.form {
            Form::Table(include) => {
                let row = table::row(self.resource, &self.decode(entry)?, self.now, include);
                out.put_slice(row.to_string().as_bytes());
            }
            Form::Partial => object::write_partial(out, stored, revision, self.owners),
            _ if self.resource.strategy.conversion.is_some() => {
                out.put_slice(&object::with_version(self.resource, stored, revision, self.owners)?);
            }
            _ => object::write_with_version(out, stored, revision, self.owners),
        }
        Ok(())
    }
}

const META: &str = "meta.k8s.io/v1";
const PARTIAL: &str = "PartialObjectMetadataList";

/// An object in JSON up to where the items of its last member begin.
fn object_open(head: &Value, member: &str) -> String {
    let head = head.to_string();
    format!("{},\"{member}\":[", &head[..head.len() - 1])
}

fn yaml(value: &Value) -> Result<String, ApiError> {
    serde_yaml_ng::to_string(value).map_err(|error| ApiError::Internal(format!("cannot write YAML: {error}")))
}
