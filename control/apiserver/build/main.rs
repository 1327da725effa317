//! What the API server knows of Kubernetes' types beyond the types themselves, taken at build time from the sources of
//! the crates that carry it: the JSON schemas and how lists merge from `k8s-openapi`, the field numbers of the protobuf
//! messages from `k8s-pb`. Neither has to be compiled for that.

mod merges;
mod messages;
mod openapi;
mod ownership;
mod schemas;
mod sources;
#[path = "../src/openapi/swagger.rs"]
mod swagger;
mod table;

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/openapi/swagger.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let sources = sources::Sources::find();
    let schemas = schemas::Schemas::read(&sources.openapi.join("src/v1_36"));
    let messages = messages::read(&sources.protobuf.join("src"));
    let table = table::Table::of(&messages, &schemas);
    std::fs::write(out.join("protobuf_table.rs"), table.to_rust()).expect("the build directory takes files");
    let merges = merges::read(&sources.openapi.join("src/v1_36"));
    let shapes = ownership::to_rust(&messages, &schemas, &merges);
    std::fs::write(out.join("apply_table.rs"), shapes).expect("the build directory takes files");
    openapi::write(&out, &messages, &schemas);
}
