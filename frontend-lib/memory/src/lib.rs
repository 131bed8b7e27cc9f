//! Registered memory: one memfd per process whose offset is the virtual address.
