//! The connection manager of one endpoint.

use crate::error::CmError;
use crate::message::Message;
use crate::types::{Channel, Config, Output, PortSpace, Target, View};
use masq_spec::verbs::{
    CmAddress, CmEnded, CmEvent, CmParam, CmQpAttr, CmRoute, Gid, QpType, State,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// The connection manager of one endpoint.
pub struct Agent {
    config: Config,
}

#[allow(unused_variables, missing_docs)]
impl Agent {
    pub fn new(config: Config) -> Self {
        Self { config }
    }
    pub fn len(&self) -> usize {
        0
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn create_id(
        &mut self,
        channel: Channel,
        port_space: PortSpace,
        qp_type: QpType,
        uid: u64,
    ) -> Result<u32, CmError> {
        Err(CmError::Unsupported)
    }
    pub fn destroy_id(&mut self, now: Instant, target: Target) -> Result<CmEnded, CmError> {
        Err(CmError::Unsupported)
    }
    pub fn bind(&mut self, target: Target, address: CmAddress) -> Result<(), CmError> {
        Err(CmError::Unsupported)
    }
    pub fn resolve_addr(
        &mut self,
        target: Target,
        source: Option<CmAddress>,
        destination: CmAddress,
        known: impl FnOnce(IpAddr) -> Option<Gid>,
    ) -> Result<(), CmError> {
        Err(CmError::Unsupported)
    }
    pub fn resolve_route(&mut self, target: Target) -> Result<(), CmError> {
        Err(CmError::Unsupported)
    }
    pub fn query(&self, target: Target) -> Result<CmRoute, CmError> {
        Err(CmError::Unsupported)
    }
    pub fn destination(&self, target: Target) -> Result<(PortSpace, QpType, SocketAddr), CmError> {
        Err(CmError::Unsupported)
    }
    pub fn connect(
        &mut self,
        now: Instant,
        target: Target,
        param: &CmParam,
    ) -> Result<(), CmError> {
        Err(CmError::Unsupported)
    }
    pub fn forbid(&mut self, target: Target, text: &str) -> Result<(), CmError> {
        Err(CmError::Unsupported)
    }
    pub fn listen(&mut self, target: Target, backlog: u32) -> Result<(), CmError> {
        Err(CmError::Unsupported)
    }
    pub fn accept(
        &mut self,
        now: Instant,
        target: Target,
        uid: u64,
        param: Option<&CmParam>,
    ) -> Result<(), CmError> {
        Err(CmError::Unsupported)
    }
    pub fn reject(
        &mut self,
        now: Instant,
        target: Target,
        reason: u8,
        private: &[u8],
    ) -> Result<(), CmError> {
        Err(CmError::Unsupported)
    }
    pub fn disconnect(&mut self, now: Instant, target: Target) -> Result<(), CmError> {
        Err(CmError::Unsupported)
    }
    pub fn qp_attr(&self, target: Target, state: State) -> Result<CmQpAttr, CmError> {
        Err(CmError::Unsupported)
    }
    pub fn next_event(&mut self, channel: Channel) -> Option<CmEvent> {
        None
    }
    pub fn set_option(
        &mut self,
        target: Target,
        level: u32,
        name: u32,
        value: &[u8],
    ) -> Result<(), CmError> {
        Err(CmError::Unsupported)
    }
    pub fn notify(&mut self, now: Instant, target: Target, event: u32) -> Result<(), CmError> {
        Err(CmError::Unsupported)
    }
    pub fn join(
        &mut self,
        target: Target,
        uid: u64,
        group: CmAddress,
        flags: u32,
    ) -> Result<u32, CmError> {
        Err(CmError::Unsupported)
    }
    pub fn leave(&mut self, channel: Channel, membership: u32) -> Result<CmEnded, CmError> {
        Err(CmError::Unsupported)
    }
    pub fn migrate(&mut self, target: Target, to: Channel) -> Result<CmEnded, CmError> {
        Err(CmError::Unsupported)
    }
    pub fn close_channel(&mut self, now: Instant, channel: Channel) {}
    pub fn close_owner(&mut self, now: Instant, owner: u64) {}
    pub fn receive(&mut self, now: Instant, from: IpAddr, message: Message, room: u64) {}
    pub fn output(&mut self) -> Option<Output> {
        None
    }
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }
    pub fn on_timeout(&mut self, now: Instant) {}
    pub fn views(&self) -> impl Iterator<Item = View> + '_ {
        let _ = &self.config;
        std::iter::empty()
    }
    pub fn by_qpn(&self, local_qpn: u32, peer: IpAddr, remote_qpn: u32) -> Option<View> {
        None
    }
    pub fn resolved_to(&self, peer: IpAddr) -> impl Iterator<Item = View> + '_ {
        std::iter::empty()
    }
    pub fn cut(&mut self, now: Instant, id: u32) {}
}
