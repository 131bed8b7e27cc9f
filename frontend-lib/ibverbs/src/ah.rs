//! Address handles and multicast.

use crate::context::Context;
use crate::errno;
use libc::c_int;
use masq_spec::command::Opcode;
use masq_spec::verbs::{AhAttr, CreateAh, Created, Multicast};
use masq_verbs_abi::*;

/// An address as commands have it.
pub(crate) fn to_wire(attr: &ibv_ah_attr) -> AhAttr {
    AhAttr {
        dgid: attr.grh.dgid.raw,
        flow_label: attr.grh.flow_label,
        dlid: attr.dlid,
        sgid_index: attr.grh.sgid_index,
        hop_limit: attr.grh.hop_limit,
        traffic_class: attr.grh.traffic_class,
        sl: attr.sl,
        src_path_bits: attr.src_path_bits,
        static_rate: attr.static_rate,
        is_global: attr.is_global,
        port_num: attr.port_num,
        reserved: 0,
    }
}

/// An address as programs have it.
pub(crate) fn from_wire(attr: &AhAttr) -> ibv_ah_attr {
    ibv_ah_attr {
        grh: ibv_global_route {
            dgid: ibv_gid { raw: attr.dgid },
            flow_label: attr.flow_label,
            sgid_index: attr.sgid_index,
            hop_limit: attr.hop_limit,
            traffic_class: attr.traffic_class,
        },
        dlid: attr.dlid,
        sl: attr.sl,
        src_path_bits: attr.src_path_bits,
        static_rate: attr.static_rate,
        is_global: attr.is_global,
        port_num: attr.port_num,
    }
}

/// Creates an address handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_create_ah(pd: *mut ibv_pd, attr: *mut ibv_ah_attr) -> *mut ibv_ah {
    // SAFETY: the caller's PD and structure.
    let (context, pd_handle, attr) = unsafe { ((*pd).context, (*pd).handle, &*attr) };
    // SAFETY: the PD's context.
    let ctx = unsafe { Context::of(context) };
    let request = CreateAh {
        pd: pd_handle,
        reserved: 0,
        attr: to_wire(attr),
    };
    match ctx
        .session
        .command::<_, Created>(Opcode::CreateAh, &request)
    {
        Ok(created) => Box::into_raw(Box::new(ibv_ah {
            context,
            pd,
            handle: created.handle,
        })),
        Err(error) => errno::null(error.errno()),
    }
}

/// Destroys an address handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_destroy_ah(ah: *mut ibv_ah) -> c_int {
    // SAFETY: the caller's handle and its context.
    let (ctx, id) = unsafe { (Context::of((*ah).context), (*ah).handle) };
    if let Err(error) = ctx.session.destroy(Opcode::DestroyAh, id) {
        return error.errno();
    }
    // SAFETY: made as a box, and the caller's last use.
    drop(unsafe { Box::from_raw(ah) });
    0
}

/// # Safety
/// A live QP and a GID.
unsafe fn multicast(opcode: Opcode, qp: *mut ibv_qp, gid: *const ibv_gid, lid: u16) -> c_int {
    // SAFETY: the caller's promise.
    let (ctx, request) = unsafe {
        let request = Multicast {
            qp: (*qp).handle,
            lid: u32::from(lid),
            gid: (*gid).raw,
        };
        (Context::of((*qp).context), request)
    };
    match ctx.session.command::<_, ()>(opcode, &request) {
        Ok(()) => 0,
        Err(error) => error.errno(),
    }
}

/// Joins a multicast group.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_attach_mcast(qp: *mut ibv_qp, gid: *const ibv_gid, lid: u16) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { multicast(Opcode::AttachMcast, qp, gid, lid) }
}

/// Leaves a multicast group.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_detach_mcast(qp: *mut ibv_qp, gid: *const ibv_gid, lid: u16) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { multicast(Opcode::DetachMcast, qp, gid, lid) }
}

/// The MAC address of a GID, on a network whose neighbours nobody has to ask for: the
/// one in a link-local GID, the group's of a multicast GID, else one made of the
/// address (locally administered).
fn mac_of(gid: &[u8; 16]) -> [u8; 6] {
    let v4_mapped = gid[..10] == [0; 10] && gid[10..12] == [0xff, 0xff];
    let link_local = gid[0] == 0xfe && gid[1] == 0x80 && gid[11..13] == [0xff, 0xfe];
    let tail = |n: usize| gid[n];
    if v4_mapped && gid[12] >> 4 == 0xe {
        [0x01, 0, 0x5e, tail(13) & 0x7f, tail(14), tail(15)]
    } else if v4_mapped {
        [0x02, 0, tail(12), tail(13), tail(14), tail(15)]
    } else if gid[0] == 0xff {
        [0x33, 0x33, tail(12), tail(13), tail(14), tail(15)]
    } else if link_local {
        [tail(8) ^ 2, tail(9), tail(10), tail(13), tail(14), tail(15)]
    } else {
        [0x02, 0x01, tail(12), tail(13), tail(14), tail(15)]
    }
}

/// The Ethernet address and VLAN (none: 0xffff) of a path.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_resolve_eth_l2_from_gid(
    _context: *mut ibv_context,
    attr: *mut ibv_ah_attr,
    mac: *mut u8,
    vid: *mut u16,
) -> c_int {
    const NO_VLAN: u16 = 0xffff;
    // SAFETY: the caller's structure, six bytes, and NULL or a variable.
    unsafe {
        let found = mac_of(&(*attr).grh.dgid.raw);
        std::ptr::copy_nonoverlapping(found.as_ptr(), mac, found.len());
        if !vid.is_null() {
            *vid = NO_VLAN;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_gid_holds_its_mac() {
        let gid = [
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 1, 2, 0xff, 0xfe, 3, 4, 5,
        ];
        assert_eq!(mac_of(&gid), [0x52, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_group_has_the_mac_of_its_group() {
        let mut gid = [0; 16];
        gid[10..].copy_from_slice(&[0xff, 0xff, 239, 129, 2, 3]);
        assert_eq!(mac_of(&gid), [1, 0, 0x5e, 1, 2, 3]);
        gid[12] = 10;
        assert_eq!(mac_of(&gid), [2, 0, 10, 129, 2, 3]);
    }

    #[test]
    fn an_address_survives_the_way_to_the_wire_and_back() {
        let attr = ibv_ah_attr {
            grh: ibv_global_route {
                dgid: ibv_gid { raw: [7; 16] },
                flow_label: 1,
                sgid_index: 2,
                hop_limit: 3,
                traffic_class: 4,
            },
            dlid: 5,
            sl: 6,
            src_path_bits: 7,
            static_rate: 8,
            is_global: 1,
            port_num: 9,
        };
        let back = from_wire(&to_wire(&attr));
        assert_eq!(format!("{attr:?}"), format!("{back:?}"));
    }
}
