//! What connections look like to a person: ring-buffer bytes to [`fairlead_model::Flow`] to JSON.
//!
//! [`decode()`] reads a record, [`Starts`] joins the two of a connection, [`Enricher`] finds names for its addresses, [`Recent`] keeps the last ones and tells
//! followers, [`Record`] is the form that leaves the process. Nothing here talks to the kernel or the network.

pub mod clock;
pub mod decode;
pub mod directory;
pub mod enrich;
pub mod recent;
pub mod record;
pub mod starts;

pub use clock::Clock;
pub use decode::{DecodeError, decode};
pub use directory::Directory;
pub use enrich::Enricher;
pub use recent::Recent;
pub use record::{FlowFilter, Record};
pub use starts::Starts;
