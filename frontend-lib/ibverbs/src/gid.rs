//! The GID table.

use crate::context::Context;
use crate::errno;
use libc::{c_int, ssize_t};
use masq_spec::command::Opcode;
use masq_spec::verbs::{self, GidEntry, GidTable};
use masq_verbs_abi::*;
use zerocopy::FromBytes as _;

/// RoCE versions that an entry can be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GidType {
    RoceV1,
    RoceV2,
}

impl GidType {
    fn raw(self) -> u32 {
        match self {
            Self::RoceV1 => verbs::GidType::RoceV1 as u32,
            Self::RoceV2 => verbs::GidType::RoceV2 as u32,
        }
    }
}

/// The table as the backend has it now, and its length.
fn table(context: &Context) -> Result<(Vec<GidEntry>, u32), c_int> {
    let bytes = context.session.command_bytes(Opcode::QueryGidTable, &[]);
    let bytes = bytes.map_err(|e| e.errno())?;
    let (head, rest) = GidTable::read_from_prefix(&bytes).map_err(|_| libc::EPROTO)?;
    let entries = rest
        .chunks_exact(size_of::<GidEntry>())
        .take(head.count as usize)
        .filter_map(|bytes| GidEntry::read_from_bytes(bytes).ok())
        .collect();
    Ok((entries, head.len))
}

fn entry(context: &Context, port: u32, index: u32) -> Result<GidEntry, c_int> {
    if port != 1 {
        return Err(libc::EINVAL);
    }
    let (entries, len) = table(context)?;
    match entries.into_iter().find(|e| e.index == index) {
        Some(entry) => Ok(entry),
        None if index < len => Err(libc::ENODATA),
        None => Err(libc::EINVAL),
    }
}

fn abi(entry: &GidEntry) -> ibv_gid_entry {
    ibv_gid_entry {
        gid: ibv_gid { raw: entry.gid },
        gid_index: entry.index,
        port_num: 1,
        gid_type: entry.gid_type,
        ndev_ifindex: 0,
    }
}

/// The index of a GID of ours.
///
/// # Safety
/// An open context.
pub(crate) unsafe fn index_of(
    context: *mut ibv_context,
    port: u8,
    gid: &ibv_gid,
    kind: GidType,
) -> Option<u8> {
    if port != 1 {
        return None;
    }
    // SAFETY: the caller's promise.
    let (entries, _) = table(unsafe { Context::of(context) }).ok()?;
    let found = entries
        .iter()
        .find(|e| e.gid == gid.raw && e.gid_type == kind.raw());
    u8::try_from(found?.index).ok()
}

/// One GID; an empty index is a zero GID. 0 or -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_query_gid(
    context: *mut ibv_context,
    port: u8,
    index: c_int,
    gid: *mut ibv_gid,
) -> c_int {
    let Ok(index) = u32::try_from(index) else {
        return errno::minus_one(libc::EINVAL);
    };
    // SAFETY: the caller's context.
    let found = match entry(unsafe { Context::of(context) }, u32::from(port), index) {
        Ok(entry) => entry.gid,
        Err(libc::ENODATA) => [0; 16],
        Err(error) => return errno::minus_one(error),
    };
    // SAFETY: the caller's variable.
    unsafe { *gid = ibv_gid { raw: found } };
    0
}

/// One entry of `entry_size` bytes; ENODATA for an empty index.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _ibv_query_gid_ex(
    context: *mut ibv_context,
    port: u32,
    index: u32,
    out: *mut ibv_gid_entry,
    flags: u32,
    entry_size: usize,
) -> c_int {
    if flags != 0 || entry_size < size_of::<ibv_gid_entry>() {
        return libc::EOPNOTSUPP;
    }
    // SAFETY: the caller's context.
    match entry(unsafe { Context::of(context) }, port, index) {
        Ok(found) => {
            // SAFETY: the caller's structure has at least this size.
            unsafe {
                std::ptr::write_bytes(out.cast::<u8>(), 0, entry_size);
                *out = abi(&found);
            }
            0
        }
        Err(error) => {
            errno::set(error);
            error
        }
    }
}

/// All entries that are not empty, `entry_size` bytes each. Their number, or a
/// negative errno: EINVAL when there is no room for all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _ibv_query_gid_table(
    context: *mut ibv_context,
    out: *mut ibv_gid_entry,
    max_entries: usize,
    flags: u32,
    entry_size: usize,
) -> ssize_t {
    if flags != 0 || entry_size < size_of::<ibv_gid_entry>() {
        return -(libc::EOPNOTSUPP as ssize_t);
    }
    // SAFETY: the caller's context.
    let entries = match table(unsafe { Context::of(context) }) {
        Ok((entries, _)) => entries,
        Err(error) => return -(error as ssize_t),
    };
    if entries.len() > max_entries {
        return -(libc::EINVAL as ssize_t);
    }
    for (i, entry) in entries.iter().enumerate() {
        // SAFETY: inside the caller's array of `max_entries` × `entry_size` bytes.
        unsafe {
            let at = out.byte_add(i * entry_size);
            std::ptr::write_bytes(at.cast::<u8>(), 0, entry_size);
            *at = abi(entry);
        }
    }
    entries.len() as ssize_t
}

/// The private form that providers and librdmacm know: 0 for RoCE v1, 1 for v2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_query_gid_type(
    context: *mut ibv_context,
    port: u8,
    index: u32,
    kind: *mut c_enum,
) -> c_int {
    // SAFETY: the caller's context.
    let found = entry(unsafe { Context::of(context) }, u32::from(port), index);
    let value = match found {
        Ok(entry) => u32::from(entry.gid_type == GidType::RoceV2.raw()),
        Err(libc::ENODATA) => 0,
        Err(error) => return errno::minus_one(error),
    };
    // SAFETY: the caller's variable.
    unsafe { *kind = value };
    0
}
