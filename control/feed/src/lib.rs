//! API objects indexed into the model and streamed to nodes.
