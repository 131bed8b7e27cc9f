//! Trains: packets that the kernel takes as one datagram and cuts again (UDP
//! segmentation offload). It numbers their IPv4 identifications from 0.

/// Packets of a train at most. Linux takes 64 since it knows trains.
pub(crate) const MAX_TRAIN: usize = 64;

/// Bytes of a train at most: less than a UDP datagram can have with IPv4 or
/// IPv6, and than what interfaces take by default (65536 with all headers).
const MAX_BYTES: usize = 65_000;

/// The longest train of packets of this length: their identifications are
/// below it, whoever received which part of the train.
pub(crate) const fn longest(packet: usize) -> usize {
    let fitting = match MAX_BYTES.checked_div(packet) {
        Some(fitting) => fitting,
        None => 1,
    };
    if fitting < MAX_TRAIN {
        fitting
    } else {
        MAX_TRAIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_fits_a_datagram() {
        assert_eq!(longest(16), MAX_TRAIN);
        assert_eq!(longest(4096 + 16), 15);
        for len in 1..5000 {
            assert!(longest(len) * len + 8 + 40 <= 65535);
        }
    }
}
