//! Several hosts: network namespaces on a network of their own, each with a masqd.

use crate::binaries::Binaries;
use crate::cable::Cable;
use crate::etcd::Etcd;
use crate::host::{Host, Place};
use crate::hub::Hub;
use crate::meeting::Meeting;
use crate::namespace::Namespace;
use crate::pair::{Pair, PairOutput};
use crate::wire::Wire;
use anyhow::Context as _;
use ipnet::{IpNet, Ipv4Net};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

/// Names of hosts, in order.
pub const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

/// `a` and `b` may do all.
const ALL: &str = "{ name: a-and-b, from: a, to: b, both_ways: true, action: allow }";

/// A policy of these tenants, each with `a` on alpha, 10.0.0.1, `b` on beta, 10.0.0.2, and
/// these rules.
pub fn two_hosts(tenants: &[&str], rules: &[&str]) -> String {
    let rules = rules.join(", ");
    let mut policy = "version: 1\nhosts: HOSTS\ntenants:\n".to_owned();
    for tenant in tenants {
        let _ = write!(
            policy,
            "  {tenant}:
    endpoints:
      a: {{ address: 10.0.0.1, host: alpha }}
      b: {{ address: 10.0.0.2, host: beta }}
    rules: [{rules}]
"
        );
    }
    policy
}

/// Where etcd is.
const ETCD: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 200), 24));

/// What joins the hosts.
#[derive(Debug)]
pub enum Network {
    /// The kernel's bridge and veths.
    Bridge(Wire),
    /// Our switch in user space.
    Hub(Hub),
    /// One veth pair.
    Cable(Cable),
}

/// Which [`Network`] it is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Joined {
    /// [`Network::Bridge`]
    #[default]
    Bridge,
    /// [`Network::Hub`]
    Hub,
    /// [`Network::Cable`], for two hosts.
    Cable,
}

/// How hosts are set up.
#[derive(Clone, Debug)]
pub struct HostsConfig {
    /// How many, of [`NAMES`].
    pub count: usize,
    /// Bytes of a packet between them.
    pub mtu: u32,
    /// Whether their addresses are of IPv6.
    pub ipv6: bool,
    /// What joins them.
    pub joined: Joined,
    /// Their programs; else those that [`Binaries::find`] finds.
    pub binaries: Option<Binaries>,
    /// Whether an etcd, on the same network, is their directory.
    pub etcd: bool,
    /// Their policy; `HOSTS` stands for their names and addresses.
    pub policy: String,
    /// Arguments of each masqd.
    pub args: Vec<String>,
}

impl Default for HostsConfig {
    fn default() -> Self {
        Self {
            count: 2,
            mtu: 1500,
            ipv6: false,
            joined: Joined::Bridge,
            binaries: None,
            etcd: false,
            policy: two_hosts(&["blue"], &[ALL]),
            args: Vec::new(),
        }
    }
}

impl HostsConfig {
    /// Joined by a [`Hub`].
    pub fn at_hub() -> Self {
        Self::default().joined(Joined::Hub)
    }

    /// Joined by this.
    #[must_use]
    pub fn joined(mut self, joined: Joined) -> Self {
        self.joined = joined;
        self
    }

    /// With these programs.
    #[must_use]
    pub fn binaries(mut self, binaries: &Binaries) -> Self {
        self.binaries = Some(binaries.clone());
        self
    }

    /// With this MTU.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// With addresses of IPv6.
    #[must_use]
    pub fn ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }

    /// So many.
    #[must_use]
    pub fn count(mut self, count: usize) -> Self {
        self.count = count;
        self
    }

    /// With an etcd as their directory.
    #[must_use]
    pub fn etcd(mut self) -> Self {
        self.etcd = true;
        self
    }

    /// With this policy.
    #[must_use]
    pub fn policy(mut self, policy: &str) -> Self {
        policy.clone_into(&mut self.policy);
        self
    }

    /// With these further arguments of masqd.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// With these tenants, each of which is as blue is without this.
    #[must_use]
    pub fn tenants(self, names: &[&str]) -> Self {
        self.policy(&two_hosts(names, &[ALL]))
    }

    /// The policy as masqd reads it.
    pub fn text(&self) -> String {
        self.filled(&self.policy)
    }

    /// Starts them.
    ///
    /// # Errors
    /// Not root, or a masqd does not come up.
    pub fn start(self) -> anyhow::Result<Hosts> {
        let network = match self.joined {
            Joined::Hub => Network::Hub(Hub::new(self.mtu)?),
            Joined::Bridge => Network::Bridge(Wire::new(self.mtu)?),
            Joined::Cable => Network::Cable(Cable::new(self.mtu)),
        };
        let mut namespaces = Vec::new();
        for at in 0..self.count {
            let mut nets = vec![self.net(at), out_of_band(at)];
            nets.dedup();
            namespaces.push(network.host(&nets)?);
        }
        // Behind the hosts: they are the first interfaces of the network.
        let etcd = match self.etcd {
            true => Some(Etcd::start_in(network.host(&[ETCD])?, ETCD.addr())?),
            false => None,
        };
        let directory = etcd.as_ref().map(Etcd::address);
        let launch = |(name, namespace)| self.launch(name, namespace, directory.as_deref());
        let hosts = NAMES.into_iter().zip(&namespaces).map(launch);
        Ok(Hosts {
            hosts: hosts.collect::<anyhow::Result<_>>()?,
            etcd,
            namespaces,
            network,
            config: self,
        })
    }

    fn net(&self, at: usize) -> IpNet {
        match self.ipv6 {
            false => out_of_band(at),
            true => {
                let address = [0x2001, 0xdb8, 0, 0, 0, 0, 0, number(at).into()];
                IpNet::new_assert(address.into(), 64)
            }
        }
    }

    fn launch(
        &self,
        name: &str,
        namespace: &Namespace,
        directory: Option<&str>,
    ) -> anyhow::Result<Host> {
        let place = Place {
            namespace: Some(namespace),
            ..Place::default()
        };
        let mut args = vec!["--host", name];
        args.extend(directory.into_iter().flat_map(|d| ["--directory", d]));
        args.extend(self.args.iter().map(String::as_str));
        let binaries = self.binaries.clone();
        let binaries = binaries.map_or_else(Binaries::find, Ok)?;
        Host::launch_at(binaries, place, &self.text(), &args)
    }

    fn filled(&self, policy: &str) -> String {
        let mut hosts = "{ ".to_owned();
        for (at, name) in NAMES.iter().take(self.count).enumerate() {
            let address = self.net(at).addr();
            let _ = write!(hosts, "{name}: {{ address: \"{address}\" }}, ");
        }
        policy.replace("HOSTS", &(hosts + "}"))
    }
}

/// Where programs meet to tell each other of their queue pairs: some do so by IPv4 only.
fn out_of_band(at: usize) -> IpNet {
    IpNet::new_assert([192, 0, 2, number(at)].into(), 24)
}

fn number(at: usize) -> u8 {
    u8::try_from(at + 1).unwrap_or(u8::MAX)
}

impl Network {
    /// A new namespace at the network.
    ///
    /// # Errors
    /// Not root, or the kernel lacks something.
    pub fn host(&self, addresses: &[IpNet]) -> anyhow::Result<Namespace> {
        match self {
            Self::Bridge(wire) => wire.host(addresses),
            Self::Hub(hub) => hub.host(addresses),
            Self::Cable(cable) => cable.host(addresses),
        }
    }
}

/// Running hosts; all ends with them.
#[derive(Debug)]
pub struct Hosts {
    // Ended in this order.
    hosts: Vec<Host>,
    etcd: Option<Etcd>,
    namespaces: Vec<Namespace>,
    network: Network,
    config: HostsConfig,
}

impl Hosts {
    /// Two at a bridge, with `blue/a` on alpha and `blue/b` on beta.
    ///
    /// # Errors
    /// As [`HostsConfig::start`].
    pub fn two() -> anyhow::Result<Self> {
        HostsConfig::default().start()
    }

    /// The first, alpha.
    pub fn alpha(&self) -> &Host {
        self.at(0)
    }

    /// The second, beta.
    pub fn beta(&self) -> &Host {
        self.at(1)
    }

    /// One of them.
    ///
    /// # Panics
    /// There are not so many.
    pub fn at(&self, at: usize) -> &Host {
        &self.hosts[at]
    }

    /// The same, to be killed and restarted.
    ///
    /// # Panics
    /// There are not so many.
    pub fn at_mut(&mut self, at: usize) -> &mut Host {
        &mut self.hosts[at]
    }

    /// Where one of them is.
    ///
    /// # Panics
    /// There are not so many.
    pub fn namespace(&self, at: usize) -> &Namespace {
        &self.namespaces[at]
    }

    /// The address of one of them.
    pub fn address(&self, at: usize) -> IpAddr {
        self.config.net(at).addr()
    }

    /// Where programs on alpha listen for those elsewhere, to tell them of their queue
    /// pairs: of IPv4 always.
    pub fn meeting_point(&self) -> IpAddr {
        out_of_band(0).addr()
    }

    /// Their directory, to be killed and restarted.
    ///
    /// # Errors
    /// They have none.
    pub fn etcd(&mut self) -> anyhow::Result<&mut Etcd> {
        self.etcd.as_mut().context("they have no etcd")
    }

    /// What joins them.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The switch.
    ///
    /// # Errors
    /// Something else joins them.
    pub fn hub(&self) -> anyhow::Result<&Hub> {
        match &self.network {
            Network::Hub(hub) => Ok(hub),
            _ => None.context("they are at no hub"),
        }
    }

    /// The bridge.
    ///
    /// # Errors
    /// Something else joins them.
    pub fn bridge(&self) -> anyhow::Result<&Wire> {
        match &self.network {
            Network::Bridge(wire) => Ok(wire),
            _ => None.context("they are at no bridge"),
        }
    }

    /// Runs a program, split at blanks, as server on alpha and as client on beta.
    ///
    /// # Errors
    /// One failed or hung.
    pub fn pair(&self, line: &str) -> anyhow::Result<PairOutput> {
        pair(line)
            .run_across(self.alpha(), self.meeting_point(), self.beta())
            .with_context(|| line.to_owned())
    }

    /// Runs two command lines that meet by rdma_cm: a server on alpha, a client on beta.
    ///
    /// # Errors
    /// One failed or hung.
    pub fn meet(&self, server: &str, client: &str) -> anyhow::Result<PairOutput> {
        Meeting::new(server, client)
            .run_across(self.alpha(), self.beta())
            .with_context(|| client.to_owned())
    }

    /// Waits until nothing is left of any program, on all hosts.
    ///
    /// # Errors
    /// Something is left.
    pub fn wait_until_empty(&self) -> anyhow::Result<()> {
        self.hosts.iter().try_for_each(Host::wait_until_empty)
    }

    /// Puts another policy into force on one host.
    ///
    /// # Errors
    /// It is refused.
    pub fn reload(&self, at: usize, policy: &str) -> anyhow::Result<()> {
        let host = self.at(at);
        std::fs::write(host.policy_file(), self.config.filled(policy))?;
        host.masq_output(["reload"])?.success()?;
        Ok(())
    }
}

/// The two runs of a command line that is split at blanks.
///
/// # Panics
/// The line is empty.
pub fn pair(line: &str) -> Pair {
    let mut words = line.split_ascii_whitespace();
    let program = words.next().expect("a program");
    Pair::new(program).args(words)
}
