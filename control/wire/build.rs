//! Generates the feed's messages into `OUT_DIR`.

fn main() -> std::io::Result<()> {
    tonic_prost_build::configure().compile_protos(&["proto/feed.proto"], &["proto"])
}
