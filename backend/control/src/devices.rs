//! The devices of this masqd, and which of them a tenant is on.

use masq_device::Device;
use masq_directory::LocalHost;
use masq_policy::{Policy, Tenant, TenantName};
use std::sync::Arc;

/// One of the devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DeviceId(u32);

impl DeviceId {
    /// For numbers that come back from elsewhere; one of no device means the first.
    pub(crate) fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    pub(crate) fn raw(self) -> u32 {
        self.0
    }
}

/// Why devices and policy do not fit each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DevicesError {
    /// Two with one name: a policy could not tell them apart.
    #[error("there are two devices called {0}; each can be given once")]
    Twice(String),
    /// The policy puts a tenant on a device that there is not.
    #[error(
        "tenant {tenant} is on the device {device} by the policy, and this masqd has {}\n  \
         start masqd with {}, or correct `device` of tenant {tenant}",
        .has.join(", "),
        options(.has, .device)
    )]
    Unknown {
        /// The tenant.
        tenant: String,
        /// What it names.
        device: String,
        /// Those that there are, the first first.
        has: Vec<String>,
    },
}

/// The command line that has one more.
fn options(has: &[String], more: &str) -> String {
    let names = has.iter().map(String::as_str).chain([more]);
    let option = |name| match name {
        "soft" => "--device soft".to_owned(),
        card => format!("--device verbs:{card}"),
    };
    names.map(option).collect::<Vec<_>>().join(" ")
}

/// The devices, in the order of the command line. Tenants whose policy names none are on
/// the first.
pub struct Devices {
    first: Arc<dyn Device>,
    others: Vec<Arc<dyn Device>>,
}

impl Devices {
    /// The first, for tenants whose policy names none.
    pub fn new(first: Arc<dyn Device>) -> Self {
        let others = Vec::new();
        Self { first, others }
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`DevicesError::Twice`].
    pub fn add(&mut self, device: Arc<dyn Device>) -> Result<(), DevicesError> {
        if self.names().any(|name| name == device.name()) {
            return Err(DevicesError::Twice(device.name().to_owned()));
        }
        self.others.push(device);
        Ok(())
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(_, device)| device.name())
    }

    /// Whether each tenant that can have endpoints on this host is on a device that there is.
    ///
    /// # Errors
    /// [`DevicesError::Unknown`], of the first that is not.
    pub fn check(&self, policy: &Policy, this: Option<&LocalHost>) -> Result<(), DevicesError> {
        let lost = policy
            .tenants()
            .filter(|tenant| may_be_here(tenant, this))
            .find_map(|tenant| {
                let name = tenant.device()?.as_str();
                self.find(name).is_none().then_some((tenant, name))
            });
        let Some((tenant, device)) = lost else {
            return Ok(());
        };
        Err(DevicesError::Unknown {
            tenant: tenant.name().to_string(),
            device: device.to_owned(),
            has: self.names().map(str::to_owned).collect(),
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (DeviceId, &Arc<dyn Device>)> {
        let all = std::iter::once(&self.first).chain(&self.others);
        (0..).map(DeviceId).zip(all)
    }

    pub(crate) fn get(&self, id: DeviceId) -> &Arc<dyn Device> {
        let further = (id.0 as usize).checked_sub(1);
        let further = further.and_then(|slot| self.others.get(slot));
        further.unwrap_or(&self.first)
    }

    fn find(&self, name: &str) -> Option<DeviceId> {
        let mut all = self.iter();
        all.find(|(_, device)| device.name() == name)
            .map(|(id, _)| id)
    }

    /// The one that a tenant is on.
    pub(crate) fn of(&self, policy: &Policy, tenant: &TenantName) -> DeviceId {
        let named = policy.tenant(tenant.as_str()).and_then(Tenant::device);
        let found = named.and_then(|name| self.find(name.as_str()));
        found.unwrap_or_default()
    }
}

/// Whether endpoints of a tenant can live on this host.
pub(crate) fn may_be_here(tenant: &Tenant, this: Option<&LocalHost>) -> bool {
    let classes = tenant.classes().map(|class| class.template());
    let mut all = tenant.endpoints().chain(classes);
    all.any(|endpoint| LocalHost::may_have(this, endpoint))
}
