//! Counters, by the names that operators see.

use super::WireCounters;
use masq_device::WireReport;
use masq_port::Counters;

pub(super) fn report(own: &WireCounters, port: &Counters) -> WireReport {
    let errors = &port.send_errors;
    WireReport {
        sent_packets: port.sent.packets,
        sent_bytes: port.sent.bytes,
        received_packets: port.received.packets,
        received_bytes: port.received.bytes,
        send_calls: port.send_calls,
        receive_calls: port.receive_calls,
        not_sent: [
            ("too_long", errors.too_long),
            ("unreachable", errors.unreachable),
            ("no_room", errors.no_room),
            ("refused", errors.refused),
            ("other", errors.other),
        ]
        .into(),
        dropped: [
            ("bad_icrc", port.bad_icrc),
            ("malformed", port.malformed.iter().sum()),
            ("not_for_us", port.not_for_us),
            ("truncated", port.truncated),
            ("overrun", port.overrun),
            ("unknown_qp", own.unknown_qp),
            ("wrong_host", own.wrong_host),
            ("wrong_partition", own.wrong_partition),
            ("refused_datagram", own.refused_datagrams),
            ("slow_memory", own.no_room),
            ("senseless", own.senseless),
        ]
        .into(),
    }
}
