//! Pure DNS answers from a view of the cluster: the Kubernetes DNS specification 1.1.0 and the habits of CoreDNS
//! that clients rely on.
//!
//! There are no sockets, no clocks and no codec here: a question goes in, record sets come out. Start reading at
//! [`Zone::answer`]; [`Zone::apply`] follows the cluster one service at a time.

mod name;
mod record;

mod arpa;
mod owners;
mod selection;
mod shards;
mod stamp;

mod entry;
mod zone;

mod answer;
mod transfer;

pub use arpa::zones as reverse_zones;
pub use name::{Labels, Name, NameError};
pub use record::{Answer, Class, Origin, Question, Rcode, Record, RecordData, RecordType, Soa};
pub use selection::Selection;
pub use stamp::Stamp;
pub use zone::{Pods, Zone, ZoneConfig, pod_key};
