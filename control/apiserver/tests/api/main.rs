//! The API server from outside: the kube client in the same process, HTTP over TLS, and the real kubectl.

mod client;
mod http;
mod kubectl;
mod logs;
mod support;
