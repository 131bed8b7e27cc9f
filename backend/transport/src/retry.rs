//! Retries of a reliable requester (IBA 9.7.5.2.8, 9.7.5.1.4).

use crate::Nak;
use masq_spec::queue::WcStatus;

/// Nanoseconds of a monotonic clock.
pub type Nanos = u64;

/// Delays that an RNR code stands for, in units of 10 µs (IBA table 45).
const RNR_DELAYS: [u32; 32] = [
    65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536,
    2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
];

/// The delay that an RNR timer code asks for.
pub fn rnr_delay(code: u8) -> Nanos {
    let units = RNR_DELAYS
        .get(usize::from(code & 31))
        .copied()
        .unwrap_or(65536);
    Nanos::from(units) * 10_000
}

/// The local ACK timeout with this code: 4.096 µs × 2^code; 0 waits for ever.
pub fn ack_timeout(code: u8) -> Option<Nanos> {
    match code & 31 {
        0 => None,
        code => Some(4096 << code),
    }
}

/// Counters of a requester for the request at the head of its queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retry {
    timeout: u8,
    retry_cnt: u8,
    rnr_retry: u8,
    retries: u8,
    rnr_retries: u8,
}

/// What a requester does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try the request again at this time.
    RetryAt(Nanos),
    /// Wait without a deadline (ACK timeout 0).
    Wait,
    /// Complete it with this status and go to ERROR.
    Fail(WcStatus),
}

impl Retry {
    /// Takes the attributes of a queue pair (`timeout`, `retry_cnt`,
    /// `rnr_retry`; 7 for the last means without end).
    pub fn new(timeout: u8, retry_cnt: u8, rnr_retry: u8) -> Self {
        Self {
            timeout,
            retry_cnt,
            rnr_retry,
            retries: 0,
            rnr_retries: 0,
        }
    }

    /// The request was answered: the counters start anew.
    pub fn progress(&mut self) {
        self.retries = 0;
        self.rnr_retries = 0;
    }

    /// Nobody answered; the attempt began at `now`.
    pub fn unanswered(&mut self, now: Nanos) -> Verdict {
        let Some(timeout) = ack_timeout(self.timeout) else {
            return Verdict::Wait;
        };
        if self.retries > self.retry_cnt {
            return Verdict::Fail(WcStatus::RetryExcErr);
        }
        self.retries += 1;
        Verdict::RetryAt(now.saturating_add(timeout))
    }

    /// The responder answered with `nak` at `now`.
    pub fn refused(&mut self, nak: Nak, now: Nanos) -> Verdict {
        let Nak::ReceiverNotReady(code) = nak else {
            return Verdict::Fail(nak.status());
        };
        // The responder answered, so it is there.
        self.retries = 0;
        if self.rnr_retry != 7 {
            if self.rnr_retries >= self.rnr_retry {
                return Verdict::Fail(WcStatus::RnrRetryExcErr);
            }
            self.rnr_retries += 1;
        }
        Verdict::RetryAt(now.saturating_add(rnr_delay(code)))
    }
}
