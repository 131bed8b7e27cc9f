//! The control side's view: [`Device`] and [`Session`] by calls into engines.

use crate::capture::SoftCapture;
use crate::engine::{Engine, Inbox, RemotePort, Wire};
use crate::limits;
use crate::network::SoftNetwork;
use masq_datapath::Engine as _;
use masq_datapath::{DataPath, DataPathConfig};
use masq_device::{
    AhSpec, Capture, CaptureSpec, CqSpec, Device, DeviceError, DomainKey, EndpointKey, Grants,
    Handle, MrSpec, MwSpec, Network, QpChange, QpReport, QpSpec, Result, Session, SessionSpec,
    SrqSpec,
};
use masq_memory::{MappedRing, Region};
use masq_port::Port;
use masq_spec::device::Features;
use masq_spec::verbs::{Access, DeviceAttr, Gid, SrqAttr, State};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The software NIC.
pub struct SoftDevice {
    paths: Vec<Arc<DataPath<Engine>>>,
    network: Option<Arc<SoftNetwork>>,
}

impl SoftDevice {
    /// Starts the data-path threads. `ports` are their ways to other hosts, one
    /// for each thread; without any the device serves this host only.
    ///
    /// # Errors
    /// The host is out of threads or descriptors, or there are fewer ports than
    /// threads.
    pub fn start(config: &DataPathConfig, ports: Vec<Box<dyn Port>>) -> io::Result<Self> {
        let threads = config.threads.max(1);
        let inbox = match ports.first() {
            None => None,
            Some(_) if ports.len() < threads => {
                return Err(io::Error::other("there are fewer ports than threads"));
            }
            Some(port) => Some((Arc::new(Inbox::new()?), port.host(), port.mtu())),
        };
        let mut ports = ports.into_iter();
        let mut paths = Vec::with_capacity(threads);
        for number in 0..threads {
            let wire = match &inbox {
                Some((inbox, ..)) => ports.next().map(|port| Wire::new(port, Arc::clone(inbox))),
                None => None,
            };
            let path = DataPath::start(number, config, |waker| {
                let mut engine = Engine::default();
                engine.port = RemotePort::new(waker);
                if let Some(wire) = wire {
                    engine.connect_to(wire, number as u32, threads as u32);
                }
                Ok(engine)
            })?;
            paths.push(Arc::new(path));
        }
        let network = inbox.map(|(inbox, host, mtu)| {
            Arc::new(SoftNetwork {
                paths: paths.clone(),
                inbox,
                host,
                mtu,
            })
        });
        Ok(Self { paths, network })
    }

    /// The data-path thread of a tenant.
    fn path_of(&self, domain: DomainKey) -> Result<&Arc<DataPath<Engine>>> {
        let number = domain.0 as usize % self.paths.len().max(1);
        self.paths.get(number).ok_or(DeviceError::Gone)
    }
}

impl Device for SoftDevice {
    fn name(&self) -> &str {
        "soft"
    }

    fn attributes(&self) -> DeviceAttr {
        limits::attributes()
    }

    fn features(&self) -> Features {
        limits::FEATURES
    }

    fn network(&self) -> Option<Arc<dyn Network>> {
        let network = self.network.as_ref()?;
        Some(Arc::clone(network) as Arc<dyn Network>)
    }

    fn capture(&self, spec: CaptureSpec) -> Result<Box<dyn Capture>> {
        let path = self.path_of(spec.domain)?;
        Ok(Box::new(SoftCapture::begin(path, &spec)?))
    }

    fn open(&self, spec: SessionSpec) -> Result<Box<dyn Session>> {
        let path = self.path_of(spec.domain)?;
        let kick = Arc::clone(&spec.kick);
        path.watch(kick.as_fd())
            .map_err(|_| DeviceError::Exhausted("descriptors"))?;
        let index = path.call(move |engine| engine.open(spec))?;
        Ok(Box::new(SoftSession {
            path: Arc::clone(path),
            index,
            kick,
        }))
    }
}

struct SoftSession {
    path: Arc<DataPath<Engine>>,
    index: usize,
    kick: Arc<OwnedFd>,
}

impl SoftSession {
    fn call<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Engine, usize) -> R + Send + 'static,
    ) -> Result<R> {
        let index = self.index;
        self.path.call(move |engine| f(engine, index))
    }
}

impl Session for SoftSession {
    fn set_gid(&mut self, gid: Gid) -> Result<()> {
        self.call(move |engine, s| engine.set_gid(s, gid))?
    }

    fn set_grants(&mut self, grants: Grants) -> Result<()> {
        self.call(move |engine, s| engine.set_grants(s, grants))?
    }

    fn register(&mut self, mr: MrSpec) -> Result<u32> {
        self.call(|engine, s| engine.register(s, mr))?
    }

    fn deregister(&mut self, mr: Handle) -> Result<Region> {
        let region = self.call(move |engine, s| engine.deregister(s, mr))??;
        Ok(Arc::try_unwrap(region).unwrap_or_else(|shared| (*shared).clone()))
    }

    fn change_mr(&mut self, mr: Handle, pd: Handle, access: Access) -> Result<u32> {
        self.call(move |engine, s| engine.change_mr(s, mr, pd, access))?
    }

    fn alloc_mw(&mut self, mw: MwSpec) -> Result<u32> {
        self.call(move |engine, s| engine.alloc_mw(s, &mw))?
    }

    fn dealloc_mw(&mut self, mw: Handle) -> Result<()> {
        self.call(move |engine, s| engine.dealloc_mw(s, mw))?
    }

    fn create_cq(&mut self, cq: CqSpec) -> Result<()> {
        self.call(|engine, s| engine.create_cq(s, cq))?
    }

    fn resize_cq(&mut self, cq: Handle, ring: MappedRing, cqe: u32) -> Result<u32> {
        let (first, _old) = self.call(move |engine, s| {
            // What was posted before the call counts: it may complete into a
            // ring that is about to be too small.
            engine.clock.forget();
            engine.turn();
            engine.resize_cq(s, cq, ring, cqe)
        })??;
        Ok(first)
    }

    fn destroy_cq(&mut self, cq: Handle) -> Result<()> {
        self.call(move |engine, s| engine.destroy_cq(s, cq))?
            .map(drop)
    }

    fn create_srq(&mut self, srq: SrqSpec) -> Result<()> {
        self.call(|engine, s| engine.create_srq(s, srq))?
    }

    fn set_srq_limit(&mut self, srq: Handle, limit: u32) -> Result<()> {
        self.call(move |engine, s| engine.set_srq_limit(s, srq, limit))?
    }

    fn query_srq(&mut self, srq: Handle) -> Result<SrqAttr> {
        self.call(move |engine, s| engine.query_srq(s, srq))?
    }

    fn destroy_srq(&mut self, srq: Handle) -> Result<()> {
        self.call(move |engine, s| engine.destroy_srq(s, srq))?
            .map(drop)
    }

    fn create_qp(&mut self, qp: QpSpec) -> Result<(u32, u32)> {
        self.call(|engine, s| engine.create_qp(s, qp))?
    }

    fn modify_qp(&mut self, qp: Handle, change: QpChange) -> Result<State> {
        self.call(move |engine, s| engine.modify_qp(s, qp, change))?
    }

    fn query_qp(&mut self, qp: Handle) -> Result<QpReport> {
        self.call(move |engine, s| engine.query_qp(s, qp))?
    }

    fn fail_qp(&mut self, qp: Handle) -> Result<()> {
        let cause = "the policy no longer allows the connection";
        self.call(move |engine, s| engine.fail_qp(s, qp, cause))?
    }

    fn destroy_qp(&mut self, qp: Handle) -> Result<()> {
        let gone = self.call(move |engine, s| {
            engine.finish_datagrams(s, Some(qp))?;
            engine.destroy_qp(s, qp)
        })??;
        match gone.joined.is_empty() {
            true => Ok(()),
            false => self.path.watch_again(),
        }
    }

    fn create_ah(&mut self, ah: AhSpec) -> Result<()> {
        self.call(|engine, s| engine.create_ah(s, ah))?
    }

    fn destroy_ah(&mut self, ah: Handle) -> Result<()> {
        self.call(move |engine, s| {
            engine.finish_datagrams(s, None)?;
            engine.destroy_ah(s, ah)
        })?
    }

    fn set_multicast_reach(&mut self, allowed: Vec<EndpointKey>) -> Result<()> {
        self.call(move |engine, s| engine.set_multicast_reach(s, allowed))?
    }

    fn attach_multicast(&mut self, qp: Handle, group: Gid) -> Result<()> {
        self.call(move |engine, s| engine.attach_multicast(s, qp, group))??;
        self.path.watch_again()
    }

    fn detach_multicast(&mut self, qp: Handle, group: Gid) -> Result<()> {
        self.call(move |engine, s| engine.detach_multicast(s, qp, group))??;
        self.path.watch_again()
    }
}

impl Drop for SoftSession {
    fn drop(&mut self) {
        self.path.unwatch(self.kick.as_fd());
        // What is left is unmapped here, not by the data path.
        drop(self.call(|engine, s| engine.close(s)));
    }
}
