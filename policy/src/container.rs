//! Which endpoint a container becomes.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use wildmatch::WildMatch;

use crate::{
    address::{Cidr, VirtualAddress},
    model::{Class, Endpoint, Labels, Policy, Tenant},
    names::{EndpointId, EndpointName},
};

/// What is known of a container when it starts.
#[derive(Debug, Clone, Default)]
pub struct Container<'a> {
    /// Tenant that it asks for.
    pub tenant: Option<&'a str>,
    /// Endpoint or class that it asks for.
    pub endpoint: Option<&'a str>,
    /// Name of its image, if the runtime tells.
    pub image: Option<&'a str>,
    /// Its annotations.
    pub labels: BTreeMap<&'a str, &'a str>,
    /// Addresses of its network namespace.
    pub addresses: Vec<IpAddr>,
}

/// What a container must have; all of what is named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerSelector {
    /// A pattern for the image's name: `*` stands for anything, `?` for a character.
    pub(crate) image: Option<String>,
    /// A network in which one of its own addresses lies.
    pub(crate) network: Option<Cidr>,
    /// Annotations that it carries.
    pub(crate) labels: Labels,
}

impl ContainerSelector {
    fn matches(&self, container: &Container<'_>) -> bool {
        let image = self.image.as_ref().is_none_or(|pattern| {
            container
                .image
                .is_some_and(|image| WildMatch::new(pattern).matches(image))
        });
        let network = self.network.is_none_or(|network| {
            let within = |ip: &IpAddr| network.contains(VirtualAddress::new(*ip));
            container.addresses.iter().any(within)
        });
        let label = |(key, value): (&std::sync::Arc<str>, &std::sync::Arc<str>)| {
            container.labels.get(&**key) == Some(&&**value)
        };
        image && network && self.labels.iter().all(label)
    }
}

impl fmt::Display for ContainerSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.image.as_ref().map(|image| format!("image {image}")));
        parts.extend(self.network.map(|network| format!("network {network}")));
        let label = |(key, value)| format!("label {key}={value}");
        parts.extend(self.labels.iter().map(label));
        f.write_str(&parts.join(" and "))
    }
}

/// Which containers may become an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Containers {
    /// Those that ask for it.
    #[default]
    Any,
    /// Those that match one of these.
    Of(Vec<ContainerSelector>),
}

impl Containers {
    fn allow(&self, container: &Container<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Of(selectors) => selectors.iter().any(|s| s.matches(container)),
        }
    }

    /// Whether it chooses containers that ask for nothing.
    fn choose(&self, container: &Container<'_>) -> bool {
        matches!(self, Self::Of(_)) && self.allow(container)
    }
}

impl fmt::Display for Containers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any container"),
            Self::Of(selectors) if selectors.is_empty() => f.write_str("no container"),
            Self::Of(selectors) => {
                let words: Vec<_> = selectors.iter().map(ToString::to_string).collect();
                f.write_str(&words.join(", or "))
            }
        }
    }
}

/// What a container becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// A fixed endpoint of the policy.
    Fixed(EndpointId),
    /// An instance of this class.
    InstanceOf(EndpointId),
}

impl Placement {
    /// The fixed endpoint, or what instances of the class begin as.
    pub fn template<'p>(&self, policy: &'p Policy) -> Option<&'p Endpoint> {
        match self {
            Self::Fixed(id) => policy.endpoint(id),
            Self::InstanceOf(id) => {
                let tenant = policy.tenant(id.tenant().as_str())?;
                tenant.class(id.name().as_str()).map(Class::template)
            }
        }
    }
}

/// Why a container becomes nothing; the text is for whoever started it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The policy has no such tenant.
    #[error("the policy has no tenant `{asked}`; {known}")]
    NoTenant {
        /// As asked for.
        asked: String,
        /// What there is.
        known: String,
    },
    /// The tenant has no such endpoint.
    #[error("tenant {tenant} has no endpoint `{asked}`; {known}")]
    NoEndpoint {
        /// The tenant.
        tenant: String,
        /// As asked for.
        asked: String,
        /// What there is.
        known: String,
    },
    /// The selectors say no.
    #[error("{of} takes {wanted}; this container has {has}")]
    NotSelected {
        /// Tenant or endpoint.
        of: String,
        /// What it takes.
        wanted: String,
        /// What the container is.
        has: String,
    },
    /// Several classes would do.
    #[error(
        "this container could become any of {0}; say which by the device TENANT:ENDPOINT or by \
         the annotation dev.masq/endpoint"
    )]
    Ambiguous(String),
    /// It asked for nothing and nothing chooses it.
    #[error("this container asks for no tenant, and no tenant's `containers` choose it")]
    NotChosen,
    /// A host that is no container.
    #[error("{0} is a host outside, which no container can be")]
    Outside(String),
    /// A tenant was asked for that has no class.
    #[error(
        "tenant {0} has no endpoint with `address: auto`; ask for a fixed one, as in \
         `{0}:NAME`"
    )]
    NoClass(String),
}

impl Policy {
    /// Decides which endpoint a container becomes. What it asks for is the word of
    /// whoever starts it, so the selectors of the tenant and of the endpoint must agree.
    ///
    /// # Errors
    /// [`PlaceError`] says why it becomes none.
    pub fn place(&self, container: &Container<'_>) -> Result<Placement, PlaceError> {
        let Some(asked) = container.tenant else {
            return self.choose(container);
        };
        let Some(tenant) = self.tenant(asked) else {
            return Err(PlaceError::NoTenant {
                asked: asked.escape_debug().to_string(),
                known: known(self.tenants().map(|t| t.name().as_str())),
            });
        };
        require(
            &tenant.containers,
            || format!("tenant {}", tenant.name()),
            container,
        )?;
        match container.endpoint {
            Some(asked) => named(tenant, asked, container),
            None => only_class(tenant, container),
        }
    }

    /// By the selectors alone.
    fn choose(&self, container: &Container<'_>) -> Result<Placement, PlaceError> {
        let chosen = self.tenants().flat_map(|tenant| {
            let by_tenant = tenant.containers.choose(container);
            tenant.classes().filter(move |class| {
                let own = &class.template.containers;
                tenant.containers.allow(container)
                    && own.allow(container)
                    && (by_tenant || own.choose(container))
            })
        });
        single(chosen.collect())?.ok_or(PlaceError::NotChosen)
    }
}

fn named(tenant: &Tenant, asked: &str, container: &Container<'_>) -> Result<Placement, PlaceError> {
    let fixed = tenant.endpoint(asked).filter(|e| e.class.is_none());
    let (template, place) = match (fixed, tenant.class(asked)) {
        (Some(endpoint), _) => (endpoint, Placement::Fixed(endpoint.id.clone())),
        (None, Some(class)) => (&class.template, Placement::InstanceOf(class.id().clone())),
        (None, None) => {
            let fits = |e: &&Endpoint| e.class.is_none() && !e.is_outside();
            let fixed = tenant.endpoints().filter(fits);
            let names = fixed
                .map(|e| e.id.name())
                .chain(tenant.classes().map(Class::name));
            return Err(PlaceError::NoEndpoint {
                tenant: tenant.name().to_string(),
                asked: asked.escape_debug().to_string(),
                known: known(names.map(EndpointName::as_str)),
            });
        }
    };
    if template.is_outside() {
        return Err(PlaceError::Outside(template.id.to_string()));
    }
    require(
        &template.containers,
        || format!("endpoint {}", template.id),
        container,
    )?;
    Ok(place)
}

fn only_class(tenant: &Tenant, container: &Container<'_>) -> Result<Placement, PlaceError> {
    let fit: Vec<_> = tenant
        .classes()
        .filter(|class| class.template.containers.allow(container))
        .collect();
    if let Some(place) = single(fit)? {
        return Ok(place);
    }
    let Some(Class { template }) = tenant.classes.first() else {
        return Err(PlaceError::NoClass(tenant.name().to_string()));
    };
    // None allows it; the first one says why.
    Err(not_selected(
        &template.containers,
        &format!("endpoint {}", template.id),
        container,
    ))
}

fn single(fit: Vec<&Class>) -> Result<Option<Placement>, PlaceError> {
    match fit.as_slice() {
        [] => Ok(None),
        [class] => Ok(Some(Placement::InstanceOf(class.id().clone()))),
        several => {
            let names: Vec<_> = several.iter().map(|class| class.id().to_string()).collect();
            Err(PlaceError::Ambiguous(names.join(", ")))
        }
    }
}

fn require(
    containers: &Containers,
    of: impl Fn() -> String,
    container: &Container<'_>,
) -> Result<(), PlaceError> {
    if containers.allow(container) {
        return Ok(());
    }
    Err(not_selected(containers, &of(), container))
}

fn not_selected(containers: &Containers, of: &str, container: &Container<'_>) -> PlaceError {
    let image = match container.image {
        Some(image) => format!("image {}", image.escape_debug()),
        None => "no image name that the runtime tells".to_owned(),
    };
    let addresses = match container.addresses.as_slice() {
        [] => "no address".to_owned(),
        some => {
            let words: Vec<_> = some.iter().map(ToString::to_string).collect();
            format!("addresses {}", words.join(" "))
        }
    };
    PlaceError::NotSelected {
        of: of.to_owned(),
        wanted: containers.to_string(),
        has: format!("{image}, {addresses}"),
    }
}

fn known<'n>(names: impl Iterator<Item = &'n str>) -> String {
    const MOST: usize = 10;
    let mut names: Vec<_> = names.collect();
    if names.is_empty() {
        return "it has none".to_owned();
    }
    names.sort_unstable();
    let more = if names.len() > MOST { ", …" } else { "" };
    names.truncate(MOST);
    format!("it has: {}{more}", names.join(", "))
}

/// Bytes that an instance adds to its class's name: a point and part of an id.
pub(crate) const INSTANCE_SUFFIX: usize = 1 + LONGEST_ID;
/// An id that is no longer than this is taken whole.
const LONGEST_ID: usize = 24;
/// What people use of an id of 64 hexadecimal digits.
const SHORT_ID: usize = 12;

/// The name of the instance of `class` that the container `id` becomes: the part that
/// people use of an id that the runtime made, the whole of one that a person chose, or
/// its beginning and a hash if it is too long.
///
/// `None` if the id holds nothing that names are made of.
pub fn instance_name(class: &EndpointName, id: &str) -> Option<EndpointName> {
    let fit = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let clean: String = id.chars().filter(fit).collect();
    if clean.is_empty() {
        return None;
    }
    let head = |length: usize| clean.get(..length).unwrap_or(&clean);
    let made_by_runtime = clean.len() >= 32 && clean.bytes().all(|b| b.is_ascii_hexdigit());
    let short = if made_by_runtime {
        head(SHORT_ID).to_owned()
    } else if clean.len() <= LONGEST_ID {
        clean
    } else {
        let fnv = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let hash = id.bytes().fold(0x811c_9dc5, fnv);
        format!("{}-{hash:08x}", head(LONGEST_ID - 9))
    };
    EndpointName::new(&format!("{class}.{short}")).ok()
}
