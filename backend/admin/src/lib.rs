//! What masqd tells the operator: one JSON request a line on the UNIX socket
//! `DIR/masqd.sock`, one JSON answer a line. `masq ps`, `masq show` and the
//! metrics are views of these reports; `masq capture` gets packets on the same connection. Besides: how masqd and the hooks of container
//! runtimes tell containers and their processes from one another.

#![forbid(unsafe_code)]

mod capture;
mod client;
mod container_id;
mod process;
mod report;

pub use capture::{CaptureRecord, CaptureView, Capturing, EndCapture, SNAP, capture};
pub use client::{AdminError, SOCKET_NAME, call};
pub use container_id::ContainerId;
pub use process::ProcessId;
pub use report::{
    Answer, CmIdReport, ConflictReport, ContainerReport, CqReport, DeviceReport, DirectoryReport,
    EndpointReport, HostsReport, IgnoredReport, MrReport, Overview, PeerReport, QpReport, QuotaUse,
    Refusal, RefusalCount, Registration, ReloadReport, Request, SessionDetail, SessionReport,
    WireReport,
};
