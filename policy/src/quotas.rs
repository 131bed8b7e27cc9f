//! Quotas: how much of each kind of object may exist at once.

use serde::Serialize;

/// How a quota is written in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A plain number.
    Count,
    /// Bytes, or a number with a binary suffix.
    Bytes,
}

/// One row of the quota table, from which the reader, the schema and the documentation are made.
pub(crate) struct QuotaKey {
    pub(crate) key: &'static str,
    pub(crate) unit: Unit,
    pub(crate) default: u64,
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) doc: &'static str,
    pub(crate) get: fn(&Quotas) -> u64,
    pub(crate) set: fn(&mut Quotas, u64),
}

macro_rules! quotas {
    ($($field:ident: $key:literal, $unit:ident, $default:expr, $min:literal..=$max:expr, $doc:literal;)+) => {
        /// The quotas of a tenant or an endpoint: an object more than the number is refused.
        ///
        /// The defaults are those of a tenant that names none.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct Quotas {
            $(#[doc = $doc] pub $field: u64,)+
        }

        impl Quotas {
            /// Nothing at all: the quotas of an endpoint that does not exist.
            pub const NOTHING: Self = Self { $($field: 0,)+ };
        }

        impl Default for Quotas {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// Every quota in the order of the reference.
        pub(crate) const QUOTAS: &[QuotaKey] = &[$(QuotaKey {
            key: $key,
            unit: Unit::$unit,
            default: $default,
            min: $min,
            max: $max,
            doc: $doc,
            get: |quotas| quotas.$field,
            set: |quotas, value| quotas.$field = value,
        },)+];
    };
}

const GIB: u64 = 1 << 30;

// A minimum of 1 stands where 0 would only lock the tenant out of the device; the maxima are
// what the interface can name (24-bit QP numbers, 47-bit addresses) or a host can bear.
quotas! {
    containers: "containers", Count, 256, 0..=65_536, "Containers that are registered, each with a socket of its own.";
    sessions: "sessions", Count, 64, 1..=65_536, "Open sessions: processes that hold the device open.";
    pds: "pds", Count, 1024, 1..=1_048_576, "Protection domains.";
    qps: "qps", Count, 1024, 1..=1_048_576, "Queue pairs.";
    cqs: "cqs", Count, 1024, 1..=1_048_576, "Completion queues.";
    srqs: "srqs", Count, 256, 0..=1_048_576, "Shared receive queues.";
    mrs: "mrs", Count, 4096, 1..=16_777_216, "Memory regions.";
    mws: "mws", Count, 1024, 0..=16_777_216, "Memory windows.";
    ahs: "ahs", Count, 1024, 0..=16_777_216, "Address handles.";
    multicast: "multicast", Count, 256, 0..=65_536, "Attachments of queue pairs to multicast groups.";
    event_queues: "event_queues", Count, 256, 1..=65_536, "Event queues, one file descriptor each: async events, completion channels, rdma_cm channels.";
    cm_ids: "cm_ids", Count, 4096, 0..=1_048_576, "rdma_cm ids: listeners, and connections from their beginning to their end.";
    windows: "windows", Count, 1024, 1..=1_048_576, "Mappings of tenant memory in the daemon; the host's vm.max_map_count bounds their sum.";
    pinned_bytes: "pinned", Bytes, 4 * GIB, 4096..=(1 << 47), "Registered memory, each registration counted in full.";
    qp_depth: "qp_depth", Count, 16_384, 1..=32_768, "Work requests in one send or receive queue.";
    srq_depth: "srq_depth", Count, 16_384, 1..=32_768, "Work requests in one shared receive queue.";
    cq_depth: "cq_depth", Count, 65_536, 1..=4_194_303, "Completions in one completion queue.";
}

impl Quotas {
    /// Each quota's key in the policy file with its value, in the order of the reference.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        QUOTAS.iter().map(|row| (row.key, (row.get)(self)))
    }
}

/// Reads `4096`, `64KiB`, `4 GiB`. `None` if the text is not of that form or does not fit.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, suffix) = text.split_at_checked(digits)?;
    let shift = match suffix.strip_prefix(' ').unwrap_or(suffix) {
        "" if suffix.is_empty() => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    parse_count(number)?.checked_mul(1 << shift)
}

/// Reads a decimal number without sign or leading zero.
pub(crate) fn parse_count(text: &str) -> Option<u64> {
    let canonical =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// The value as a person would write it: `4GiB`, `1024`.
pub(crate) fn format_quota(unit: Unit, value: u64) -> String {
    const SUFFIXES: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    if unit == Unit::Bytes && value > 0 {
        for (shift, suffix) in SUFFIXES {
            if value.trailing_zeros() >= shift {
                return format!("{}{suffix}", value >> shift);
            }
        }
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_suffixes_only() {
        assert_eq!(parse_bytes("4096"), Some(4096));
        assert_eq!(parse_bytes("4GiB"), Some(4 * GIB));
        assert_eq!(parse_bytes("64 KiB"), Some(65_536));
        for bad in [
            "",
            "GiB",
            "4GB",
            "4 ",
            "-1",
            "010",
            "4gib",
            "99999999999TiB",
            "1.5GiB",
        ] {
            assert_eq!(parse_bytes(bad), None, "{bad:?}");
        }
        assert_eq!(format_quota(Unit::Bytes, 4 * GIB), "4GiB");
        assert_eq!(format_quota(Unit::Count, 1024), "1024");
    }

    #[test]
    fn every_default_is_within_its_bounds_and_every_key_sets_its_own_field() {
        for row in QUOTAS {
            assert!((row.min..=row.max).contains(&row.default), "{}", row.key);
            let mut quotas = Quotas::default();
            (row.set)(&mut quotas, 7);
            assert_eq!((row.get)(&quotas), 7);
            let defaults = Quotas::default();
            let changed = quotas.iter().zip(defaults.iter()).filter(|(a, b)| a != b);
            assert_eq!(changed.count(), 1, "{}", row.key);
        }
    }

    #[test]
    fn the_readme_lists_every_quota_as_it_is() {
        let readme = include_str!("../README.md");
        for row in QUOTAS {
            let write = |value| format_quota(row.unit, value);
            let (default, min, max) = (write(row.default), write(row.min), write(row.max));
            let line = format!(
                "| `{}` | {default} | {min} to {max} | {} |",
                row.key, row.doc
            );
            assert!(readme.contains(&line), "README.md lacks\n{line}");
        }
    }
}
