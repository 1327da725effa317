//! The paths of the OpenAPI v2 document, in protobuf and in JSON: those of the v3 documents in another form.

use serde_json::{Map, Value, json};

use super::swagger::{extensions, named, plain, put, schema, varint};

/// The field of `PathItem` for each method.
const METHODS: &[(&str, u8)] = &[("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)];

/// The field `paths` of a `Document`.
pub(super) fn paths(paths: &Map<String, Value>) -> Vec<u8> {
    let mut all = Vec::new();
    for (path, item) in paths {
        put(&mut all, 2, named(path, &path_item(item)));
    }
    let mut out = Vec::new();
    put(&mut out, 8, all);
    out
}

fn path_item(item: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (method, field) in METHODS {
        if item[method].is_object() {
            put(&mut out, *field, operation(&item[method]));
        }
    }
    parameters(&mut out, 9, &item["parameters"]);
    out
}

fn operation(of: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, 5, of["operationId"].as_str().unwrap_or_default());
    put(&mut out, 6, "application/json");
    let body = of["requestBody"]["content"].as_object();
    for media in body.into_iter().flatten().map(|(media, _)| media) {
        put(&mut out, 7, media);
    }
    if let Some((_, content)) = body.and_then(|content| content.iter().next()) {
        put(&mut out, 8, body_parameter(content, of["requestBody"]["required"] == true));
    }
    parameters(&mut out, 8, &of["parameters"]);
    let mut responses = Vec::new();
    for (code, answer) in of["responses"].as_object().into_iter().flatten() {
        put(&mut responses, 1, named(code, &response(answer)));
    }
    put(&mut out, 9, responses);
    extensions(&mut out, 13, of);
    out
}

/// A `ResponseValue`.
fn response(answer: &Value) -> Vec<u8> {
    let mut item = Vec::new();
    put(&mut item, 1, schema(&answer["content"]["application/json"]["schema"]));
    let mut response = Vec::new();
    put(&mut response, 1, "OK");
    put(&mut response, 2, item);
    let mut out = Vec::new();
    put(&mut out, 1, response);
    out
}

/// A `ParametersItem` for the body.
fn body_parameter(content: &Value, required: bool) -> Vec<u8> {
    let mut body = Vec::new();
    put(&mut body, 2, "body");
    put(&mut body, 3, "body");
    truth(&mut body, 4, required);
    put(&mut body, 5, schema(&content["schema"]));
    let mut parameter = Vec::new();
    put(&mut parameter, 1, body);
    let mut out = Vec::new();
    put(&mut out, 1, parameter);
    out
}

/// `ParametersItem`s for parameters of the path or query, whose messages differ in the place of the type.
fn parameters(out: &mut Vec<u8>, field: u8, list: &Value) {
    for parameter in list.as_array().into_iter().flatten() {
        let text = |name: &str| parameter[name].as_str().unwrap_or_default();
        let (kind, type_field) = if text("in") == "path" { (4, 5) } else { (3, 6) };
        let mut sub = Vec::new();
        truth(&mut sub, 1, parameter["required"] == true);
        put(&mut sub, 2, text("in"));
        put(&mut sub, 3, text("description"));
        put(&mut sub, 4, text("name"));
        put(&mut sub, type_field, parameter["schema"]["type"].as_str().unwrap_or_default());
        let mut non_body = Vec::new();
        put(&mut non_body, kind, sub);
        let mut wrapped = Vec::new();
        put(&mut wrapped, 2, non_body);
        let mut item = Vec::new();
        put(&mut item, 1, wrapped);
        put(out, field, item);
    }
}

fn truth(out: &mut Vec<u8>, field: usize, value: bool) {
    if value {
        varint(out, field << 3);
        varint(out, 1);
    }
}

/// The object `paths` of the document in JSON.
pub(super) fn plain_paths(paths: &Map<String, Value>) -> Map<String, Value> {
    let item = |item: &Value| {
        let mut out = Map::new();
        for (method, _) in METHODS.iter().filter(|(method, _)| item[method].is_object()) {
            out.insert((*method).to_owned(), plain_operation(&item[method]));
        }
        out.insert("parameters".to_owned(), plain_parameters(&item["parameters"]).into());
        Value::Object(out)
    };
    paths.iter().map(|(path, of)| (path.clone(), item(of))).collect()
}

fn plain_operation(of: &Value) -> Value {
    let mut parameters = plain_parameters(&of["parameters"]);
    let body = of["requestBody"]["content"].as_object();
    if let Some((_, content)) = body.and_then(|content| content.iter().next()) {
        parameters.push(json!({
            "name": "body",
            "in": "body",
            "required": of["requestBody"]["required"] == true,
            "schema": plain(&content["schema"]),
        }));
    }
    let answers = of["responses"].as_object().into_iter().flatten();
    let answers = answers.map(|(code, answer)| {
        let schema = plain(&answer["content"]["application/json"]["schema"]);
        (code.clone(), json!({ "description": "OK", "schema": schema }))
    });
    let mut out = json!({
        "operationId": of["operationId"],
        "produces": ["application/json"],
        "parameters": parameters,
        "responses": answers.collect::<Map<_, _>>(),
    });
    if let Some(body) = body {
        out["consumes"] = body.keys().cloned().collect();
    }
    for (name, value) in of.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
        out[name] = value.clone();
    }
    out
}

fn plain_parameters(list: &Value) -> Vec<Value> {
    let flat = |parameter: &Value| {
        let mut out = parameter.clone();
        for name in ["type", "uniqueItems"] {
            out[name] = parameter["schema"][name].clone();
        }
        out.as_object_mut().expect("a parameter is an object").remove("schema");
        out
    };
    list.as_array().into_iter().flatten().map(flat).collect()
}
