//! The address of a datagram's sender, out of its completion and the forty bytes
//! before its payload (RoCE v1 and v2: a GRH, or an IPv4 header in its last twenty).

use crate::errno;
use crate::gid::{self, GidType};
use libc::c_int;
use masq_verbs_abi::*;

const IPPROTO_UDP: u8 = 17;
/// A GRH follows whose next header is a BTH: RoCE v1.
const NEXT_HEADER_IBA: u8 = 0x1b;

/// What the forty bytes hold.
#[derive(Debug, PartialEq, Eq)]
enum Header {
    /// An IPv4 header in the last twenty bytes.
    V4([u8; 20]),
    /// A GRH or IPv6 header.
    V6([u8; 40]),
}

/// One's-complement sum of an IPv4 header, which is 0xffff if its checksum is right.
fn checksum_holds(header: &[u8; 20]) -> bool {
    let sum: u32 = header
        .chunks_exact(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    folded + (folded >> 16) == 0xffff
}

/// Tells the two apart: an IPv6 version in front decides, unless an IPv4 header
/// without options stands in the second half and its checksum holds.
fn header(bytes: &[u8; 40]) -> Option<Header> {
    let mut v4 = [0; 20];
    v4.copy_from_slice(&bytes[20..]);
    if bytes[0] >> 4 != 6 {
        return (v4[0] >> 4 == 4).then_some(Header::V4(v4));
    }
    if v4[0] == 0x45 && checksum_holds(&v4) {
        return Some(Header::V4(v4));
    }
    Some(Header::V6(*bytes))
}

fn mapped(v4: &[u8]) -> ibv_gid {
    let mut raw = [0; 16];
    raw[10] = 0xff;
    raw[11] = 0xff;
    raw[12..].copy_from_slice(v4);
    ibv_gid { raw }
}

fn array16(bytes: &[u8]) -> ibv_gid {
    let mut raw = [0; 16];
    raw.copy_from_slice(bytes);
    ibv_gid { raw }
}

/// Our GID and its type, and the route back.
fn route(header: &Header) -> Result<(ibv_gid, GidType, ibv_global_route), c_int> {
    let (own, kind, route) = match header {
        Header::V4(ip) => {
            let route = ibv_global_route {
                dgid: mapped(&ip[12..16]),
                hop_limit: ip[8],
                traffic_class: ip[1],
                ..ibv_global_route::default()
            };
            // 224.0.0.0/4: a group has no entry in the GID table.
            let group = ip[16] >> 4 == 0xe;
            let own = (!group).then(|| mapped(&ip[16..20]));
            (own, GidType::RoceV2, route)
        }
        Header::V6(grh) => {
            let route = ibv_global_route {
                dgid: array16(&grh[8..24]),
                hop_limit: grh[7],
                traffic_class: grh[0] << 4 | grh[1] >> 4,
                ..ibv_global_route::default()
            };
            let kind = match grh[6] {
                IPPROTO_UDP => GidType::RoceV2,
                NEXT_HEADER_IBA => GidType::RoceV1,
                _ => return Err(libc::EPROTONOSUPPORT),
            };
            let own = (grh[24] != 0xff).then(|| array16(&grh[24..40]));
            (own, kind, route)
        }
    };
    own.map(|own| (own, kind, route)).ok_or(libc::EINVAL)
}

/// Fills `ah_attr` with what a reply needs. 0, or -1 with errno: EINVAL for a
/// datagram to a group, EPROTONOSUPPORT for an unknown header.
///
/// # Safety
/// As the C function: all pointers valid, `grh` read only if the completion says so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_init_ah_from_wc(
    context: *mut ibv_context,
    port_num: u8,
    wc: *mut ibv_wc,
    grh: *mut ibv_grh,
    ah_attr: *mut ibv_ah_attr,
) -> c_int {
    // SAFETY: the caller's promise.
    let (wc, out) = unsafe { (&*wc, &mut *ah_attr) };
    *out = ibv_ah_attr {
        dlid: wc.slid,
        sl: wc.sl,
        src_path_bits: wc.dlid_path_bits,
        port_num,
        ..ibv_ah_attr::default()
    };
    if grh.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise; the bytes of a received datagram may be unaligned.
    let bytes: [u8; 40] = unsafe { std::ptr::read_unaligned(grh.cast()) };
    let flow_label = u32::from_be_bytes([0, bytes[1] & 0xf, bytes[2], bytes[3]]);
    out.grh.flow_label = flow_label;
    if wc.wc_flags & IBV_WC_GRH == 0 {
        return 0;
    }
    out.is_global = 1;
    let found = header(&bytes).ok_or(libc::EPROTONOSUPPORT);
    let (own, kind, route) = match found.and_then(|h| route(&h)) {
        Ok(found) => found,
        Err(error) => return errno::minus_one(error),
    };
    out.grh = ibv_global_route {
        flow_label,
        ..route
    };
    // SAFETY: the caller's context.
    match unsafe { gid::index_of(context, port_num, &own, kind) } {
        Some(index) => {
            out.grh.sgid_index = index;
            0
        }
        None => errno::minus_one(libc::ENODATA),
    }
}

/// An address handle for a reply.
///
/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_create_ah_from_wc(
    pd: *mut ibv_pd,
    wc: *mut ibv_wc,
    grh: *mut ibv_grh,
    port_num: u8,
) -> *mut ibv_ah {
    let mut attr = ibv_ah_attr::default();
    // SAFETY: the caller's pointers, and a local.
    unsafe {
        if ibv_init_ah_from_wc((*pd).context, port_num, wc, grh, &mut attr) != 0 {
            return std::ptr::null_mut();
        }
        crate::ah::ibv_create_ah(pd, &mut attr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4_packet() -> [u8; 40] {
        let mut bytes = [0u8; 40];
        let ip = [
            0x45, 0x20, 0, 60, 0, 1, 0, 0, 63, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        bytes[20..].copy_from_slice(&ip);
        let sum: u32 = ip
            .chunks(2)
            .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
            .sum();
        let check = !((sum & 0xffff) + (sum >> 16)) as u16;
        bytes[30..32].copy_from_slice(&check.to_be_bytes());
        bytes
    }

    #[test]
    fn an_ipv4_header_is_found_by_its_checksum_even_behind_a_six() {
        let mut bytes = v4_packet();
        assert!(matches!(header(&bytes), Some(Header::V4(_))));
        bytes[0] = 0x60;
        assert!(matches!(header(&bytes), Some(Header::V4(_))));
        bytes[39] ^= 1;
        assert!(matches!(header(&bytes), Some(Header::V6(_))));
        bytes[0] = 0x10;
        bytes[20] = 0x10;
        assert_eq!(header(&bytes), None);
    }

    #[test]
    fn the_route_back_leads_to_the_sender() {
        let (own, kind, route) = route(&header(&v4_packet()).unwrap()).unwrap();
        assert_eq!(own, mapped(&[10, 0, 0, 2]));
        assert_eq!(kind, GidType::RoceV2);
        assert_eq!(route.dgid, mapped(&[10, 0, 0, 1]));
        assert_eq!((route.hop_limit, route.traffic_class), (63, 0x20));
    }

    #[test]
    fn a_datagram_to_a_group_has_no_own_gid() {
        let mut grh = [0u8; 40];
        grh[0] = 0x60;
        grh[6] = NEXT_HEADER_IBA;
        grh[24] = 0xff;
        assert_eq!(route(&Header::V6(grh)).unwrap_err(), libc::EINVAL);
        grh[24] = 0xfe;
        grh[6] = 58;
        assert_eq!(route(&Header::V6(grh)).unwrap_err(), libc::EPROTONOSUPPORT);
    }
}
