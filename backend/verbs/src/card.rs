//! A card: its port, its own GID, and what the virtual device may claim.

use crate::CardError;
use crate::host::{Channel, Context, Cq, Pd, Qp, QpShape, Srq, Ticket};
use crate::iwarp::{has_iova, reserve};
use masq_spec::device::Features;
use masq_spec::verbs::{DeviceAttr, Gid};
use masq_verbs_abi::*;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Elements and inline bytes that work requests of the relay have room for.
const MAX_SGE: u32 = crate::host::MAX_SGE as u32;
const MAX_INLINE: u32 = crate::host::MAX_INLINE as u32;
/// Entries of the GID table that are looked at.
const GIDS: u32 = 1024;
/// `vendor_id` of rdma_rxe.
const RXE: u32 = 0xff_ffff;

/// What goes under the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// RoCEv2.
    Ethernet,
    /// InfiniBand: peers are found by LID as well.
    InfiniBand { lid: u16 },
    /// iWARP: connections are made by the connection manager only.
    Iwarp,
}

/// What is known of a card.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) name: String,
    pub(crate) port: u8,
    pub(crate) link: Link,
    /// In network order.
    pub(crate) node_guid: u64,
    /// Its own GID, the source of all that it sends.
    pub(crate) gid: Gid,
    pub(crate) gid_index: u8,
    /// `ibv_mtu` of the port.
    pub(crate) mtu: u32,
    /// Retries after a timeout (`retry_cnt`) that the card takes at most for what they
    /// are: rdma_rxe takes 7 for "for ever", which 7 is of RNR retries only (IBA 9.7.5.2.8).
    pub(crate) most_retries: u8,
    pub(crate) attributes: DeviceAttr,
    pub(crate) features: Features,
    /// It finds memory by the address that it is told.
    pub(crate) has_iova: bool,
    /// Its character device.
    pub(crate) node: Option<PathBuf>,
}

impl Card {
    /// Looks at an open card. `host`: the address that its GID must have.
    pub(crate) fn examine(
        name: &str,
        context: &Arc<Context>,
        host: Option<IpAddr>,
    ) -> Result<Self, CardError> {
        let fails = |what| move |source| CardError::Host { what, source };
        let attr = context
            .query()
            .map_err(fails("ask the card what it can do"))?;
        let ports = 1..=attr.phys_port_cnt.max(1);
        let active = ports.filter_map(|port| Some((port, context.query_port(port).ok()?)));
        let up = |(_, port): &(u8, ibv_port_attr)| {
            matches!(port.state, IBV_PORT_ACTIVE | IBV_PORT_ACTIVE_DEFER)
        };
        let Some((port, port_attr)) = active.into_iter().find(up) else {
            return Err(CardError::PortDown { name: name.into() });
        };
        let link = match (is_iwarp(name), port_attr.link_layer) {
            (true, _) => Link::Iwarp,
            (_, layer) if layer == IBV_LINK_LAYER_INFINIBAND as u8 => {
                Link::InfiniBand { lid: port_attr.lid }
            }
            _ => Link::Ethernet,
        };
        let (gid_index, gid) = match link {
            Link::Ethernet => own_gid(name, context, port, host)?,
            Link::InfiniBand { .. } | Link::Iwarp => {
                let gid = context
                    .query_gid(port, 0)
                    .map_err(fails("read the GID table"))?;
                (0, gid)
            }
        };
        if !has_iova(attr.vendor_id) {
            // Now, while these addresses are free.
            reserve();
        }
        let probe = Probe::of(context, &attr).map_err(fails("try what the card can do"))?;
        Ok(Self {
            name: name.into(),
            port,
            link,
            node_guid: attr.node_guid,
            gid,
            gid_index,
            mtu: port_attr.active_mtu,
            most_retries: if attr.vendor_id == RXE { 6 } else { 7 },
            attributes: attributes(&attr, &probe),
            features: features(&attr, &probe, link),
            has_iova: has_iova(attr.vendor_id),
            node: node_of(name),
        })
    }
}

fn sysfs(name: &str) -> PathBuf {
    Path::new("/sys/class/infiniband").join(name)
}

/// The kernel calls such a node "4: RNIC".
fn is_iwarp(name: &str) -> bool {
    let node_type = std::fs::read_to_string(sysfs(name).join("node_type"));
    node_type.is_ok_and(|text| text.starts_with('4'))
}

/// The character device of a card, `/dev/infiniband/uverbsN`.
fn node_of(name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir("/sys/class/infiniband_verbs").ok()?;
    let of_card = |dir: &PathBuf| {
        let text = std::fs::read_to_string(dir.join("ibdev")).ok();
        text.is_some_and(|text| text.trim() == name)
    };
    let mut dirs = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let dir = dirs.find(of_card)?;
    Some(Path::new("/dev/infiniband").join(dir.file_name()?))
}

/// The GID of an address (RoCEv2 annex A17.3).
pub(crate) fn gid_of(address: IpAddr) -> Gid {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address that a RoCEv2 GID stands for.
pub(crate) fn address_of(gid: Gid) -> IpAddr {
    Ipv6Addr::from(gid).to_canonical()
}

/// The index and the GID that the card sends from: that of `host`, or else the
/// first of an IPv4 address, of a global IPv6 address, of any.
fn own_gid(
    name: &str,
    context: &Context,
    port: u8,
    host: Option<IpAddr>,
) -> Result<(u8, Gid), CardError> {
    let types = sysfs(name).join(format!("ports/{port}/gid_attrs/types"));
    let is_v2 = |index: u32| {
        let text = std::fs::read_to_string(types.join(index.to_string()));
        text.is_ok_and(|text| text.trim() == "RoCE v2")
    };
    let all = (0..GIDS).map_while(|index| Some((index, context.query_gid(port, index).ok()?)));
    let usable: Vec<(u8, Gid)> = all
        .filter(|(index, gid)| *gid != [0; 16] && is_v2(*index))
        .filter_map(|(index, gid)| Some((u8::try_from(index).ok()?, gid)))
        .collect();
    if let Some(address) = host {
        let found = usable.iter().find(|(_, gid)| *gid == gid_of(address));
        return found.copied().ok_or_else(|| CardError::NoGid {
            name: name.into(),
            address,
            addresses: usable.iter().map(|(_, gid)| address_of(*gid)).collect(),
        });
    }
    let rank = |(_, gid): &(u8, Gid)| match address_of(*gid) {
        IpAddr::V4(_) => 0,
        IpAddr::V6(v6) if !v6.is_unicast_link_local() => 1,
        IpAddr::V6(_) => 2,
    };
    let best = usable.into_iter().min_by_key(rank);
    best.ok_or_else(|| CardError::NoGids { name: name.into() })
}

/// What only trying tells.
struct Probe {
    max_inline: u32,
    unreliable_connected: bool,
    datagrams: bool,
    resize: bool,
    srq: bool,
}

impl Probe {
    fn of(context: &Arc<Context>, attr: &ibv_device_attr) -> std::io::Result<Self> {
        let pd = Pd::new(context)?;
        let channel = Channel::new(context)?;
        let cq = Cq::new(&channel, 16, Ticket(0))?;
        let takes = |qp_type, max_inline_data| {
            let cap = ibv_qp_cap {
                max_send_wr: 1,
                max_recv_wr: 1,
                max_send_sge: 1,
                max_recv_sge: 1,
                max_inline_data,
            };
            let shape = QpShape {
                qp_type,
                cap,
                sq_sig_all: false,
                ticket: Ticket(0),
            };
            Qp::new(&pd, &cq, &cq, None, &shape).is_ok()
        };
        // The largest that is taken, by halving.
        let (mut fits, mut fails) = (0, MAX_INLINE + 1);
        while fails - fits > 1 {
            let middle = fits + (fails - fits) / 2;
            match takes(IBV_QPT_RC, middle) {
                true => fits = middle,
                false => fails = middle,
            }
        }
        Ok(Self {
            max_inline: fits,
            unreliable_connected: takes(IBV_QPT_UC, 0),
            datagrams: takes(IBV_QPT_UD, 0),
            resize: cq.resize(32).is_ok(),
            srq: attr.max_srq > 0 && Srq::new(&pd, 1, 1, Ticket(0)).is_ok(),
        })
    }
}

fn features(attr: &ibv_device_attr, probe: &Probe, link: Link) -> Features {
    let mut features = Features::empty();
    let roce = link == Link::Ethernet;
    features.set(Features::UC, probe.unreliable_connected);
    features.set(Features::UD, probe.datagrams && roce);
    features.set(Features::ATOMIC, attr.atomic_cap != IBV_ATOMIC_NONE);
    features.set(Features::SRQ, probe.srq);
    features.set(Features::RESIZE_CQ, probe.resize);
    features.set(Features::IWARP, link == Link::Iwarp);
    features
}

/// The card's limits, as far as the relay can pass them on.
fn attributes(attr: &ibv_device_attr, probe: &Probe) -> DeviceAttr {
    let limit = |value: libc::c_int| u32::try_from(value).unwrap_or(0);
    let srq = |value: libc::c_int| if probe.srq { limit(value) } else { 0 };
    // Of its flags those that tell of the transport; the others promise verbs that
    // are not passed on.
    const PASSED: u32 = 1 << 7 | 1 << 11 | 1 << 12;
    DeviceAttr {
        max_mr_size: attr.max_mr_size,
        page_size_cap: masq_spec::device::PAGE_SIZE,
        device_cap_flags: u64::from(attr.device_cap_flags & PASSED),
        max_qp: limit(attr.max_qp),
        max_qp_wr: limit(attr.max_qp_wr).min(masq_spec::queue::MAX_SLOTS),
        // One is kept for the headers of datagrams.
        max_sge: limit(attr.max_sge)
            .saturating_sub(u32::from(probe.datagrams))
            .min(MAX_SGE),
        max_sge_rd: limit(attr.max_sge_rd).min(MAX_SGE),
        max_cq: limit(attr.max_cq),
        max_cqe: limit(attr.max_cqe),
        max_mr: limit(attr.max_mr),
        max_pd: limit(attr.max_pd),
        max_qp_rd_atom: limit(attr.max_qp_rd_atom),
        max_qp_init_rd_atom: limit(attr.max_qp_init_rd_atom),
        max_res_rd_atom: limit(attr.max_res_rd_atom),
        atomic_cap: attr.atomic_cap,
        max_mw: 0,
        max_mcast_grp: 0,
        max_mcast_qp_attach: 0,
        max_total_mcast_qp_attach: 0,
        max_ah: if probe.datagrams {
            limit(attr.max_ah).max(1)
        } else {
            0
        },
        max_srq: srq(attr.max_srq),
        max_srq_wr: srq(attr.max_srq_wr),
        max_srq_sge: srq(attr.max_srq_sge).min(MAX_SGE),
        max_inline_data: probe.max_inline,
        local_ca_ack_delay: u32::from(attr.local_ca_ack_delay),
    }
}
