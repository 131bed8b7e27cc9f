//! What carries the data: the software NIC or a card.

use crate::args::{Args, DeviceChoice, PortKind};
use crate::run::Underlay;
use anyhow::{Context, Result};
use masq_datapath::DataPathConfig;
use masq_device::Device;
use masq_port::Port;
use masq_soft::SoftDevice;
use masq_verbs::VerbsDevice;
use std::sync::Arc;

/// Starts the device that `--device` names.
pub(crate) fn start(
    args: &Args,
    config: &DataPathConfig,
    underlay: Option<&Underlay>,
) -> Result<Arc<dyn Device>> {
    match &args.device {
        DeviceChoice::Soft => soft(config, underlay),
        DeviceChoice::Verbs(name) => {
            verbs(name, config, underlay).with_context(|| format!("--device verbs:{name}"))
        }
        DeviceChoice::Auto => match automatic(config, underlay) {
            Some(card) => Ok(card),
            None => soft(config, underlay),
        },
    }
}

/// The first card that is usable, in the order of libibverbs.
fn automatic(config: &DataPathConfig, underlay: Option<&Underlay>) -> Option<Arc<dyn Device>> {
    let cards = match masq_verbs::cards() {
        Ok(cards) => cards,
        Err(error) => {
            tracing::info!(%error, "--device auto: no cards, so the soft device");
            return None;
        }
    };
    if cards.is_empty() {
        tracing::info!("--device auto: the host has no RDMA card, so the soft device");
    }
    cards.iter().find_map(|name| {
        let started = verbs(name, config, underlay);
        let refused = |error: &anyhow::Error| {
            tracing::warn!(card = name, "--device auto: not this card: {error:#}");
        };
        started.inspect_err(refused).ok()
    })
}

fn verbs(
    name: &str,
    config: &DataPathConfig,
    underlay: Option<&Underlay>,
) -> Result<Arc<dyn Device>> {
    let host = underlay.map(|underlay| underlay.host.address);
    let device = VerbsDevice::start(name, config, host)?;
    let card = device.info();
    let address = card.address.map(|address| address.to_string());
    tracing::info!(
        card = card.name,
        port = card.port,
        link = card.link,
        address,
        "an RDMA card carries the data"
    );
    Ok(Arc::new(device))
}

fn soft(config: &DataPathConfig, underlay: Option<&Underlay>) -> Result<Arc<dyn Device>> {
    let device = SoftDevice::start(config, ports(underlay, config.threads)?);
    Ok(Arc::new(device.context("start the data-path threads")?))
}

/// The ports of the data-path threads; none if this host is the only one.
fn ports(underlay: Option<&Underlay>, threads: usize) -> Result<Vec<Box<dyn Port>>> {
    let Some(Underlay { host, port }) = underlay else {
        return Ok(Vec::new());
    };
    let config = masq_port::Config {
        threads: threads.max(1),
        ..masq_port::Config::new(host.address)
    };
    let kind = match port {
        PortKind::Udp => masq_port::PortKind::Udp,
        PortKind::Raw => masq_port::PortKind::Raw,
    };
    masq_port::open(kind, &config).context("--port")
}
