//! `rdma_set_option`.

use super::Agent;
use super::state::{Phase, Queued};
use crate::error::CmError;
use crate::types::{Event, Target};
use masq_spec::verbs::QpType;

/// Bytes of a `struct ib_path_rec_data`.
const PATH_RECORD: usize = 72;
/// `IBV_PATH_FLAG_GMP | IBV_PATH_FLAG_PRIMARY | IBV_PATH_FLAG_BIDIRECTIONAL`:
/// the path that a connection takes.
const PRIMARY_PATH: u32 = 0x2b;

impl Agent {
    /// Sets an option: level 0 (the id) type of service, REUSEADDR, AFONLY, ACK
    /// timeout; level 1 (InfiniBand) the path, which resolves the route.
    ///
    /// # Errors
    /// [`CmError::Invalid`] for a wrong size or state, [`CmError::Unsupported`]
    /// for an unknown option.
    pub fn set_option(
        &mut self,
        target: Target,
        level: u32,
        name: u32,
        value: &[u8],
    ) -> Result<(), CmError> {
        let id = self.id_mut(target)?;
        match (level, name) {
            (0, 0) => {
                id.tos = byte(value)?;
            }
            (0, 1) => {
                let reuse = int(value)? != 0;
                if !(id.phase == Phase::Idle || (reuse && id.phase != Phase::Listening)) {
                    return Err(CmError::Invalid);
                }
                id.reuse = reuse;
                let (space, port) = (id.port_space, id.source.port());
                self.ports
                    .change(space, port, target.id, |holder| holder.reuse = reuse);
            }
            (0, 2) => {
                let only = int(value)? != 0;
                if !matches!(id.phase, Phase::Idle | Phase::Bound) {
                    return Err(CmError::Invalid);
                }
                id.family_only = Some(only);
                let (space, port) = (id.port_space, id.source.port());
                self.ports
                    .change(space, port, target.id, |holder| holder.family_only = only);
            }
            (0, 3) => {
                let timeout = byte(value)?;
                if id.qp_type != QpType::Rc || timeout > 31 {
                    return Err(CmError::Invalid);
                }
                id.ack_timeout = Some(timeout);
            }
            (1, 1) => return self.set_path(target, value),
            _ => return Err(CmError::Unsupported),
        }
        Ok(())
    }

    /// The path is the one that the agent knows anyway; what matters is that the
    /// route is resolved by it.
    fn set_path(&mut self, target: Target, value: &[u8]) -> Result<(), CmError> {
        let primary = value.len().is_multiple_of(PATH_RECORD)
            && value.chunks_exact(PATH_RECORD).any(|record| {
                matches!(record, [a, b, c, d, ..]
                    if u32::from_ne_bytes([*a, *b, *c, *d]) == PRIMARY_PATH)
            });
        let id = self.id_mut(target)?;
        if !primary || id.phase != Phase::AddressResolved {
            return Err(CmError::Invalid);
        }
        id.phase = Phase::RouteResolved;
        self.post(target.id, Queued::plain(Event::RouteResolved, 0));
        Ok(())
    }
}

fn byte(value: &[u8]) -> Result<u8, CmError> {
    match value {
        [value] => Ok(*value),
        _ => Err(CmError::Invalid),
    }
}

fn int(value: &[u8]) -> Result<i32, CmError> {
    Ok(i32::from_ne_bytes(
        value.try_into().map_err(|_| CmError::Invalid)?,
    ))
}
