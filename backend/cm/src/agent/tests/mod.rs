//! Tests that need more than one agent, or to see inside one.

mod forged;
mod harness;
mod invariants;
mod network;
mod random;
mod rules_addresses;
mod rules_connect;
mod rules_datagram;
mod rules_end;
mod rules_ids;
