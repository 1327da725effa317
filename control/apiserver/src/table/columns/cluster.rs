//! Storage, rights, certificates and admission.

use super::{AGE, Cell, Column, NAME, column, integer, wide};
use crate::table::cells::cluster as cell;

/// Persistent volumes.
pub(crate) const VOLUME: &[Column] = &[
    NAME,
    column("Capacity", Cell::At("/spec/capacity/storage"), "How much it holds."),
    column("Access Modes", Cell::Of(cell::access_modes), "How it may be mounted."),
    column("Reclaim Policy", Cell::At("/spec/persistentVolumeReclaimPolicy"), "What follows its release."),
    column("Status", Cell::Of(cell::volume_status), "Whether it is bound."),
    column("Claim", Cell::Of(cell::claim), "The claim that it is bound to."),
    column("StorageClass", Cell::At("/spec/storageClassName"), "The class that it is of."),
    column("VolumeAttributesClass", Cell::Of(cell::attributes_class), "The class of its attributes."),
    column("Reason", Cell::At("/status/reason"), "Why it is in its state."),
    AGE,
    wide("VolumeMode", Cell::Of(cell::volume_mode), "A file system, or a raw device."),
];

/// Claims of persistent volumes.
pub(crate) const VOLUME_CLAIM: &[Column] = &[
    NAME,
    column("Status", Cell::Of(cell::volume_status), "Whether it is bound."),
    column("Volume", Cell::At("/spec/volumeName"), "The volume that it is bound to."),
    column("Capacity", Cell::Of(cell::bound_capacity), "How much it holds."),
    column("Access Modes", Cell::Of(cell::bound_access_modes), "How it may be mounted."),
    column("StorageClass", Cell::At("/spec/storageClassName"), "The class that is wanted."),
    column("VolumeAttributesClass", Cell::Of(cell::attributes_class), "The class of its attributes."),
    AGE,
    wide("VolumeMode", Cell::Of(cell::volume_mode), "A file system, or a raw device."),
];

/// Storage classes.
pub(crate) const STORAGE_CLASS: &[Column] = &[
    Column { format: "name", ..column("Name", Cell::Of(cell::class_name), "The object's name.") },
    column("Provisioner", Cell::At("/provisioner"), "Who makes the volumes."),
    column("ReclaimPolicy", Cell::At("/reclaimPolicy"), "What follows a volume's release."),
    column("VolumeBindingMode", Cell::At("/volumeBindingMode"), "When volumes are made and bound."),
    column("AllowVolumeExpansion", Cell::Of(cell::expansion), "Whether volumes can grow."),
    AGE,
];

/// Classes of a volume's attributes.
pub(crate) const ATTRIBUTES_CLASS: &[Column] =
    &[NAME, column("DriverName", Cell::At("/driverName"), "The driver that knows them."), AGE];

/// Attachments of volumes.
pub(crate) const VOLUME_ATTACHMENT: &[Column] = &[
    NAME,
    column("Attacher", Cell::At("/spec/attacher"), "Who attaches it."),
    column("PV", Cell::At("/spec/source/persistentVolumeName"), "The volume."),
    column("Node", Cell::At("/spec/nodeName"), "The node."),
    column("Attached", Cell::Of(cell::attached), "Whether it is attached."),
    AGE,
];

/// Drivers of the container storage interface.
pub(crate) const CSI_DRIVER: &[Column] = &[
    NAME,
    column("AttachRequired", Cell::At("/spec/attachRequired"), "Whether volumes are attached first."),
    column("PodInfoOnMount", Cell::At("/spec/podInfoOnMount"), "Whether the driver is told of the pod."),
    column("StorageCapacity", Cell::At("/spec/storageCapacity"), "Whether the scheduler looks at capacity."),
    column("TokenRequests", Cell::Of(cell::token_requests), "The audiences of the tokens that it wants."),
    column("RequiresRepublish", Cell::At("/spec/requiresRepublish"), "Whether volumes are published again."),
    column("Modes", Cell::Of(cell::lifecycle_modes), "The lives that volumes may have."),
    AGE,
];

/// Drivers on a node.
pub(crate) const CSI_NODE: &[Column] =
    &[NAME, integer("Drivers", Cell::Of(cell::drivers), "How many drivers the node has."), AGE];

/// What storage is left.
pub(crate) const STORAGE_CAPACITY: &[Column] = &[
    NAME,
    column("StorageClassName", Cell::At("/storageClassName"), "The class."),
    column("Capacity", Cell::At("/capacity"), "How much is left."),
];

/// Bindings of roles.
pub(crate) const ROLE_BINDING: &[Column] = &[
    NAME,
    column("Role", Cell::Of(cell::role), "The role that is given."),
    AGE,
    wide("Users", Cell::Of(cell::users), "The users that get it."),
    wide("Groups", Cell::Of(cell::groups), "The groups that get it."),
    wide("ServiceAccounts", Cell::Of(cell::accounts), "The service accounts that get it."),
];

/// Requests for certificates.
pub(crate) const SIGNING_REQUEST: &[Column] = &[
    NAME,
    AGE,
    column("SignerName", Cell::At("/spec/signerName"), "Who is asked to sign."),
    column("Requestor", Cell::At("/spec/username"), "Who asks."),
    column("RequestedDuration", Cell::Of(cell::requested_duration), "For how long."),
    column("Condition", Cell::Of(cell::request_condition), "What became of it."),
];

/// Webhooks of admission, of either kind.
pub(crate) const WEBHOOKS: &[Column] =
    &[NAME, integer("Webhooks", Cell::Of(cell::webhooks), "How many webhooks there are."), AGE];

/// Policies that refuse.
pub(crate) const VALIDATING_POLICY: &[Column] = &[
    NAME,
    integer("Validations", Cell::Of(cell::validations), "How many conditions there are."),
    column("ParamKind", Cell::Of(cell::param_kind), "The kind of the parameters."),
    AGE,
];

/// How a part of the server is.
pub(crate) const COMPONENT_STATUS: &[Column] = &[
    NAME,
    column("Status", Cell::Of(cell::component_health), "Whether it is healthy."),
    column("Message", Cell::At("/conditions/0/message"), "What it says."),
    column("Error", Cell::At("/conditions/0/error"), "Why it cannot be asked."),
];

/// Policies that change.
pub(crate) const MUTATING_POLICY: &[Column] = &[
    NAME,
    integer("Mutations", Cell::Of(cell::mutations), "How many changes there are."),
    column("ParamKind", Cell::Of(cell::param_kind), "The kind of the parameters."),
    AGE,
];

/// Where a policy holds.
pub(crate) const POLICY_BINDING: &[Column] = &[
    NAME,
    column("PolicyName", Cell::At("/spec/policyName"), "The policy."),
    column("ParamRef", Cell::Of(cell::param_ref), "The parameters."),
    AGE,
];
